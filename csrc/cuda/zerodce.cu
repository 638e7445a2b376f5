#include <cuda_pipeline_primitives.h>
#include <mma.h>

#include "access.cuh"
#include "zerodce_tile.h"

namespace fastllie {
namespace {

using namespace zerodce;

constexpr int DCE_THREADS = 32 * WARPS;
// Blocks of a multiprocessor at a time: what their registers and shared memory allow on sm_90
constexpr int DCE_BLOCKS = 4;

// What is older knows no bfloat16 in its tensor cores; fastllie.ops asks for more
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
// The threads of a block.
struct Block {
  int thread = threadIdx.x, threads = DCE_THREADS, warp = threadIdx.x / 32, warps = WARPS;
  int lane = threadIdx.x % 32, lanes = 32;

  __device__ __forceinline__ void barrier() const { __syncthreads(); }
  __device__ __forceinline__ void warp_barrier() const { __syncwarp(); }
  // past the registers, so that all of a tile's copies are under way at once
  template <class F>
  __device__ __forceinline__ void copy(F* to, const F* from) const {
    static_assert(sizeof(F) * VECTOR == 16, "the widest copy that there is");
    __pipeline_memcpy_async(to, from, 16);
  }
  __device__ __forceinline__ void copied() const {
    __pipeline_commit();
    __pipeline_wait_prior(0);
  }
};

template <class Element>
struct TensorCore {
  using F = Element;
  using A = nvcuda::wmma::fragment<nvcuda::wmma::matrix_a, SIDE, SIDE, SIDE, F, nvcuda::wmma::row_major>;
  using B = nvcuda::wmma::fragment<nvcuda::wmma::matrix_b, SIDE, SIDE, SIDE, F, nvcuda::wmma::row_major>;
  using Sums = nvcuda::wmma::fragment<nvcuda::wmma::accumulator, SIDE, SIDE, SIDE, float>;

  template <class Fragment>
  static __device__ __forceinline__ void load(Fragment& to, const F* from, int pitch) {
    nvcuda::wmma::load_matrix_sync(to, from, pitch);
  }
  static __device__ __forceinline__ void clear(Sums& sums) { nvcuda::wmma::fill_fragment(sums, 0.0f); }
  static __device__ __forceinline__ void add(Sums& sums, const A& a, const B& b) {
    nvcuda::wmma::mma_sync(sums, a, b, sums);
  }
  static __device__ __forceinline__ void store(float* to, const Sums& sums, int pitch) {
    nvcuda::wmma::store_matrix_sync(to, sums, pitch, nvcuda::wmma::mem_row_major);
  }
  static __device__ __forceinline__ void narrow(float v, F& to) { fastllie::narrow(v, to); }
  static __device__ __forceinline__ float widen(F v) { return fastllie::widen(v); }
};
#endif

template <class F, int SOURCE_COUNT, bool ANEW, bool LAST>
__global__ void __launch_bounds__(DCE_THREADS, DCE_BLOCKS) zerodce_kernel(const __grid_constant__ Task task) {
#if __CUDA_ARCH__ >= 800
  using Work = Tile<TensorCore<F>, Block, SOURCE_COUNT, ANEW, LAST>;
  extern __shared__ __align__(32) unsigned char memory[];
  const Block block;
  for (int64_t tile = blockIdx.x; tile < task.tiles(); tile += gridDim.x)
    Work(block, task, *reinterpret_cast<typename Work::Space*>(memory), tile).run();
#endif
}

template <class F, int SOURCE_COUNT, bool ANEW, bool LAST>
void launch(const Task& task, cudaStream_t stream) {
  constexpr int bytes = sizeof(Shared<F, SOURCE_COUNT>);
  const auto kernel = zerodce_kernel<F, SOURCE_COUNT, ANEW, LAST>;
  // more than the 48 KiB that are granted unasked
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  const int64_t tiles = task.tiles();
  const dim3 blocks(static_cast<unsigned>(tiles < 0x7fffffff ? tiles : 0x7fffffff));
  kernel<<<blocks, DCE_THREADS, bytes, stream>>>(task);
  check(cudaGetLastError());
}

template <class F>
void launch_layers(const ZeroDceMatrices& network, cudaStream_t stream) {
  launch<F, 1, true, false>(task_of(network, 2), stream);
  launch<F, 1, false, false>(task_of(network, 3), stream);
  launch<F, 1, false, false>(task_of(network, 4), stream);
  launch<F, 2, false, false>(task_of(network, 5), stream);
  launch<F, 2, false, false>(task_of(network, 6), stream);
  launch<F, 2, true, true>(task_of(network, 7), stream);
}

}  // namespace

void zerodce_forward_cuda(const ZeroDceMatrices& network, int device, void* stream) {
  const OnDevice guard(device);
  const auto s = static_cast<cudaStream_t>(stream);
  if (network.x.dtype == Dtype::bf16)
    launch_layers<__nv_bfloat16>(network, s);
  else
    launch_layers<__half>(network, s);
}

}  // namespace fastllie
