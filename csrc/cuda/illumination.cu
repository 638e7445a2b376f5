#include "access.cuh"
#include "illumination.h"

namespace fastllie {
namespace {

constexpr int VIEWS = 8;

// Inputs, then outputs; a null output is not wanted.
struct Task {
  View views[VIEWS];
  Grid grid;
};

__device__ __forceinline__ float sigmoid_of(float z) { return 1 / (1 + expf(-z)); }
__device__ __forceinline__ double sigmoid_of(double z) { return 1 / (1 + exp(-z)); }

struct DivideForward {
  static constexpr int INPUTS = 2, OUTPUTS = 1;
  template <class T>
  static __device__ __forceinline__ void apply(const T* in, T* out) {
    out[0] = divide(in[0], in[1], T(1));
  }
};

struct DivideBackward {
  static constexpr int INPUTS = 3, OUTPUTS = 2;
  template <class T>
  static __device__ __forceinline__ void apply(const T* in, T* out) {
    divide_backward(in[0], in[1], in[2], T(1), out[0], out[1]);
  }
};

struct IlluminateForward {
  static constexpr int INPUTS = 3, OUTPUTS = 2;
  template <class T>
  static __device__ __forceinline__ void apply(const T* in, T* out) {
    out[0] = illuminate(sigmoid_of(in[0]), in[1], T(1));
    out[1] = divide(in[2], out[0], T(1));
  }
};

struct IlluminateBackward {
  static constexpr int INPUTS = 5, OUTPUTS = 3;
  template <class T>
  static __device__ __forceinline__ void apply(const T* in, T* out) {
    illuminate_backward(in[0], in[1], sigmoid_of(in[2]), in[3], in[4], T(1), out[0], out[1], out[2]);
  }
};

// N pixels of one channel a thread; width counts packs of N pixels.
template <class X, class F, int N>
__global__ void __launch_bounds__(THREADS) map_kernel(const Task task, int64_t total) {
  using T = typename Wide<X>::type;
  for (int64_t i = blockIdx.x * int64_t{THREADS} + threadIdx.x; i < total;
       i += int64_t{gridDim.x} * THREADS) {
    const Place place(task.grid, i);
    T in[F::INPUTS][N], out[F::OUTPUTS][N];
#pragma unroll
    for (int k = 0; k < F::INPUTS; ++k) read<N>(place.in<X>(task.views[k], N), in[k]);
#pragma unroll
    for (int p = 0; p < N; ++p) {
      T from[F::INPUTS], to[F::OUTPUTS];
#pragma unroll
      for (int k = 0; k < F::INPUTS; ++k) from[k] = in[k][p];
      F::apply(from, to);
#pragma unroll
      for (int k = 0; k < F::OUTPUTS; ++k) out[k][p] = to[k];
    }
#pragma unroll
    for (int k = 0; k < F::OUTPUTS; ++k) {
      const View& view = task.views[F::INPUTS + k];
      if (view.data) write<N>(place.in<X>(view, N), out[k]);
    }
  }
}

template <class X, class F, int N>
void launch(const Task& task, cudaStream_t stream) {
  const Grid& grid = task.grid;
  const int64_t total = grid.batch * grid.channels * grid.height * grid.width;
  map_kernel<X, F, N><<<blocks_for(total), THREADS, 0, stream>>>(task, total);
  check(cudaGetLastError());
}

template <class X, class F>
void execute(Task task, cudaStream_t stream) {
  constexpr int COUNT = F::INPUTS + F::OUTPUTS, pixels = PIXELS<X>;
  Grid& grid = task.grid;
  bool adjoin = true;
  for (int k = 0; k < COUNT; ++k) adjoin = adjoin && rows_adjoin(task.views[k], grid.width);
  if (adjoin) {
    grid.width *= grid.height;
    grid.height = 1;
    for (View& view : task.views) view.strides[2] = 0;
  }
  bool whole = grid.width % pixels == 0;
  for (int k = 0; k < COUNT; ++k) whole = whole && packs(task.views[k], sizeof(X), pixels);
  grid.interleaved = !whole && task.views[0].strides[1] == 1 && task.views[0].strides[3] != 1;
  if (whole) {
    grid.width /= pixels;
    launch<X, F, pixels>(task, stream);
  } else {
    launch<X, F, 1>(task, stream);
  }
}

template <class F>
void dispatch(std::initializer_list<View> views, const Sizes& sizes, int device, void* stream) {
  const OnDevice guard(device);
  Task task{{}, {sizes[0], sizes[1], sizes[2], sizes[3], false}};
  int count = 0;
  for (const View& view : views) task.views[count++] = view;
  const auto s = static_cast<cudaStream_t>(stream);
  switch (task.views[0].dtype) {
    case Dtype::f64:
      return execute<double, F>(task, s);
    case Dtype::bf16:
      return execute<__nv_bfloat16, F>(task, s);
    case Dtype::f16:
      return execute<__half, F>(task, s);
    default:
      return execute<float, F>(task, s);
  }
}

}  // namespace

void divide_forward_cuda(const View& x, const View& illum, const View& out, const Sizes& sizes, int device,
                         void* stream) {
  dispatch<DivideForward>({x, illum, out}, sizes, device, stream);
}

void divide_backward_cuda(const View& grad, const View& x, const View& illum, const View& grad_x,
                          const View& grad_illum, const Sizes& sizes, int device, void* stream) {
  dispatch<DivideBackward>({grad, x, illum, grad_x, grad_illum}, sizes, device, stream);
}

void illuminate_forward_cuda(const View& raw, const View& v, const View& y, const View& illum,
                             const View& out, const Sizes& sizes, int device, void* stream) {
  dispatch<IlluminateForward>({raw, v, y, illum, out}, sizes, device, stream);
}

void illuminate_backward_cuda(const View& grad_illum, const View& grad_out, const View& raw, const View& v,
                              const View& y, const View& grad_raw, const View& grad_v, const View& grad_y,
                              const Sizes& sizes, int device, void* stream) {
  dispatch<IlluminateBackward>({grad_illum, grad_out, raw, v, y, grad_raw, grad_v, grad_y}, sizes, device,
                               stream);
}

}  // namespace fastllie
