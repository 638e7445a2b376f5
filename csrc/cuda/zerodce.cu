#include "zerodce_tile.cuh"

namespace fastllie {
namespace {

using namespace zerodce;

// Blocks of a multiprocessor at a time: what their registers and shared memory allow on sm_90
constexpr int DCE_BLOCKS = 4;

template <class F, int SOURCE_COUNT, bool ANEW, bool LAST>
__global__ void __launch_bounds__(THREADS_OF_TILE, DCE_BLOCKS)
    zerodce_kernel(const __grid_constant__ Task task) {
// What is older knows no bfloat16 in its tensor cores. fastllie.ops asks for more; a build for an older
// architecture alone, on a newer chip, must not return what nobody wrote
#if __CUDA_ARCH__ >= 800
  using Work = Tile<F, SOURCE_COUNT, ANEW, LAST>;
  extern __shared__ __align__(32) unsigned char memory[];
  for (int64_t tile = blockIdx.x; tile < task.tiles(); tile += gridDim.x)
    Work(task, *reinterpret_cast<typename Work::Space*>(memory), tile).run();
#else
  __trap();
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
  kernel<<<blocks, THREADS_OF_TILE, bytes, stream>>>(task);
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
