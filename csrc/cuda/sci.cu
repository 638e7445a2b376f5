#include "sci.h"

#include "access.cuh"

namespace fastllie {
namespace {

// Output pixels of a block, and vertical neighbours of a thread: their nine inputs a channel and column serve
// four sums. Three layers of such a tile in float32 fill the 48 KiB of shared memory that every device has.
template <class T>
constexpr int TILE = sizeof(T) == 8 ? 16 : 32;
constexpr int DOWN = 4;
// Those that the widest layer has work for: 36 columns by 9 groups of rows, to whole warps
constexpr int SCI_THREADS = 352;
// Blocks of a multiprocessor at a time: what their shared memory allows on sm_80
constexpr int SCI_BLOCKS = 3;

struct SciTask {
  View x, out;
  const void *weights, *biases;
  int64_t batch, height, width, tiles_x, tiles_y;
  bool residual, reflect;
};

__device__ __forceinline__ float widen(uint8_t v) { return v * (1.0f / 255); }
__device__ __forceinline__ void narrow(float v, uint8_t& to) {
  to = static_cast<uint8_t>(__float2int_rn(v * 255.0f));
}

struct Bounds {
  template <class T>
  static __device__ __forceinline__ T at_least(T v, T low) {
    return v < low ? low : v;
  }
  template <class T>
  static __device__ __forceinline__ T at_most(T v, T high) {
    return v > high ? high : v;
  }
};

// e^-z, finite
__device__ __forceinline__ float decay_of(float z) { return expf(Bounds::at_most(-z, 87.0f)); }
__device__ __forceinline__ double decay_of(double z) { return exp(Bounds::at_most(-z, 700.0)); }

// A layer's values in shared memory: three channels of SIZE x SIZE pixels, the first one `margin` pixels
// above and left of the tile.
template <class T, int SIZE>
struct Layer {
  T values[SCI_CHANNELS][SIZE][SIZE];
};

template <class T>
struct Shared {
  Layer<T, TILE<T> + 6> x;
  Layer<T, TILE<T> + 4> first;
  Layer<T, TILE<T> + 2> second;
  T weights[SCI_LAYERS * SCI_WEIGHTS], biases[SCI_LAYERS * SCI_CHANNELS];
};

// DOWN vertical neighbours of one column from (i, j): the sums of a convolution whose inputs start at the
// same indices. Rows beyond SIZE are repeated: their sums are not kept.
template <class T, int SIZE>
__device__ __forceinline__ void convolve(const Layer<T, SIZE>& from, int i, int j, const T* weights,
                                         const T* biases, T (&sums)[SCI_CHANNELS][DOWN]) {
#pragma unroll
  for (int o = 0; o < SCI_CHANNELS; ++o) {
#pragma unroll
    for (int k = 0; k < DOWN; ++k) sums[o][k] = biases[o];
  }
// not unrolled: 27 weights in registers at a time, not 81
#pragma unroll 1
  for (int c = 0; c < SCI_CHANNELS; ++c) {
#pragma unroll
    for (int kx = 0; kx < 3; ++kx) {
      T column[DOWN + 2];
#pragma unroll
      for (int k = 0; k < DOWN + 2; ++k) column[k] = from.values[c][min(i + k, SIZE - 1)][j + kx];
#pragma unroll
      for (int o = 0; o < SCI_CHANNELS; ++o) {
#pragma unroll
        for (int ky = 0; ky < 3; ++ky) {
          const T weight = weights[(o * SCI_CHANNELS + c) * SCI_TAPS + ky * 3 + kx];
#pragma unroll
          for (int k = 0; k < DOWN; ++k) sums[o][k] += column[k + ky] * weight;
        }
      }
    }
  }
}

// Calls body(i, j) for the first row of each group of rows and the column of this thread's share.
template <class Body>
__device__ __forceinline__ void each_group(int size, const Body& body) {
  const int groups = (size + DOWN - 1) / DOWN * size;
  for (int at = threadIdx.x; at < groups; at += SCI_THREADS) body(at / size * DOWN, at % size);
}

// Where the value at `at` of a layer lies in it, of which `begin` is the first: itself inside the image, its
// mirror image one outside.
__device__ __forceinline__ int64_t source(int64_t at, int64_t begin, int64_t size) {
  return mirrored(at, size) - begin;
}

// Fills a hidden layer: a pixel outside the image is zero, or the mirror image of one that is in the tile.
template <class T, int SIZE, class Finish>
__device__ __forceinline__ void hidden(const Layer<T, SIZE + 2>& from, const T* weights, const T* biases,
                                       Layer<T, SIZE>& to, int64_t top, int64_t left, const SciTask& task,
                                       const Finish& finish) {
  each_group(SIZE, [&](int i, int j) {
    T sums[SCI_CHANNELS][DOWN];
    convolve(from, i, j, weights, biases, sums);
#pragma unroll
    for (int k = 0; k < DOWN; ++k) {
      if (i + k >= SIZE) continue;
      const int64_t h = top + i + k, w = left + j;
      const bool inside = h >= 0 && h < task.height && w >= 0 && w < task.width;
#pragma unroll
      for (int o = 0; o < SCI_CHANNELS; ++o)
        to.values[o][i + k][j] = inside ? finish(o, i + k, j, Bounds::at_least(sums[o][k], T(0))) : T(0);
    }
  });
  __syncthreads();
  if (!task.reflect) return;
  for (int at = threadIdx.x; at < SIZE * SIZE; at += SCI_THREADS) {
    const int i = at / SIZE, j = at % SIZE;
    const int64_t h = top + i, w = left + j;
    const bool near = h >= -1 && h <= task.height && w >= -1 && w <= task.width;
    const bool outside = h < 0 || h >= task.height || w < 0 || w >= task.width;
    if (!near || !outside) continue;
    const int64_t from_i = source(h, top, task.height), from_j = source(w, left, task.width);
    // at the far side of a tile that reaches beyond the image nothing is kept that needs it
    if (from_i < 0 || from_i >= SIZE || from_j < 0 || from_j >= SIZE) continue;
#pragma unroll
    for (int o = 0; o < SCI_CHANNELS; ++o) to.values[o][i][j] = to.values[o][from_i][from_j];
  }
  __syncthreads();
}

template <class X>
__global__ void __launch_bounds__(SCI_THREADS, SCI_BLOCKS) sci_kernel(const SciTask task) {
  using T = typename Wide<X>::type;
  constexpr int SIZE = TILE<T>;
  __shared__ Shared<T> shared;
  for (int i = threadIdx.x; i < SCI_LAYERS * SCI_WEIGHTS; i += SCI_THREADS)
    shared.weights[i] = static_cast<const T*>(task.weights)[i];
  for (int i = threadIdx.x; i < SCI_LAYERS * SCI_CHANNELS; i += SCI_THREADS)
    shared.biases[i] = static_cast<const T*>(task.biases)[i];

  const int64_t tiles = task.batch * task.tiles_y * task.tiles_x;
  for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const int64_t left = tile % task.tiles_x * SIZE, top = tile / task.tiles_x % task.tiles_y * SIZE;
    const int64_t b = tile / (task.tiles_x * task.tiles_y);
    const X* from = static_cast<const X*>(task.x.data) + b * task.x.strides[0];
    X* to = static_cast<X*>(task.out.data) + b * task.out.strides[0];
    constexpr int WIDE = SIZE + 2 * SCI_HALO;
    // before the last tile's pixels are overwritten
    __syncthreads();
    // of interleaved channels neighbouring threads read neighbouring channels
    const bool interleaved = task.x.strides[1] == 1;
    for (int at = threadIdx.x; at < SCI_CHANNELS * WIDE * WIDE; at += SCI_THREADS) {
      const int c = interleaved ? at % SCI_CHANNELS : at / (WIDE * WIDE);
      const int pixel = interleaved ? at / SCI_CHANNELS : at % (WIDE * WIDE);
      const int i = pixel / WIDE, j = pixel % WIDE;
      int64_t h = top + i - SCI_HALO, w = left + j - SCI_HALO;
      if (task.reflect) {
        h = mirrored(h, task.height);
        w = mirrored(w, task.width);
      }
      const bool inside = h >= 0 && h < task.height && w >= 0 && w < task.width;
      shared.x.values[c][i][j] =
          inside ? widen(from[c * task.x.strides[1] + h * task.x.strides[2] + w * task.x.strides[3]]) : T(0);
    }
    __syncthreads();
    hidden(shared.x, shared.weights, shared.biases, shared.first, top - 2, left - 2, task,
           [](int, int, int, T sum) { return sum; });
    hidden(shared.first, shared.weights + SCI_WEIGHTS, shared.biases + SCI_CHANNELS, shared.second, top - 1,
           left - 1, task, [&](int o, int i, int j, T sum) {
             return task.residual ? shared.first.values[o][i + 1][j + 1] + sum : sum;
           });
    each_group(SIZE, [&](int i, int j) {
      T sums[SCI_CHANNELS][DOWN];
      convolve(shared.second, i, j, shared.weights + 2 * SCI_WEIGHTS, shared.biases + 2 * SCI_CHANNELS, sums);
#pragma unroll
      for (int k = 0; k < DOWN; ++k) {
        const int64_t h = top + i + k, w = left + j;
        if (h >= task.height || w >= task.width) continue;
#pragma unroll
        for (int o = 0; o < SCI_CHANNELS; ++o) {
          const T x = shared.x.values[o][i + k + SCI_HALO][j + SCI_HALO];
          narrow(sci_quotient<Bounds>(x, decay_of(sums[o][k]), T(1)),
                 to[o * task.out.strides[1] + h * task.out.strides[2] + w * task.out.strides[3]]);
        }
      }
    });
  }
}

template <class X>
void launch(SciTask task, cudaStream_t stream) {
  constexpr int size = TILE<typename Wide<X>::type>;
  task.tiles_x = (task.width + size - 1) / size;
  task.tiles_y = (task.height + size - 1) / size;
  const int64_t tiles = task.batch * task.tiles_y * task.tiles_x;
  const dim3 blocks(static_cast<unsigned>(tiles < 0x7fffffff ? tiles : 0x7fffffff));
  sci_kernel<X><<<blocks, SCI_THREADS, 0, stream>>>(task);
  check(cudaGetLastError());
}

}  // namespace

void sci_forward_cuda(const View& x, const View& weights, const View& biases, const View& out, const Sci& sci,
                      int device, void* stream) {
  const OnDevice guard(device);
  const SciTask task{x, out, weights.data, biases.data, sci.sizes[0], sci.sizes[2], sci.sizes[3],
                     0, 0,   sci.residual, sci.reflect};
  const auto s = static_cast<cudaStream_t>(stream);
  switch (x.dtype) {
    case Dtype::f64:
      return launch<double>(task, s);
    case Dtype::bf16:
      return launch<__nv_bfloat16>(task, s);
    case Dtype::f16:
      return launch<__half>(task, s);
    case Dtype::u8:
      return launch<uint8_t>(task, s);
    default:
      return launch<float>(task, s);
  }
}

}  // namespace fastllie
