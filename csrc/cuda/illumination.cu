#include "access.cuh"
#include "illumination.h"

namespace fastllie {
namespace {

constexpr int VIEWS = 8;

// Inputs, then outputs; a null output is not wanted.
struct Task {
  View views[VIEWS];
  Rows rows;
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

// N pixels of one channel a thread
template <class X, class F, int N>
__global__ void __launch_bounds__(THREADS) map_kernel(const __grid_constant__ Task task) {
  using T = typename Wide<X>::type;
  const Place place(task.rows);
  if (!place.inside) return;
  Pack<X, N> packs[F::INPUTS];
#pragma unroll
  for (int k = 0; k < F::INPUTS; ++k) packs[k] = load<N>(place.in<N, X>(task.views[k]));
  T out[F::OUTPUTS][N];
#pragma unroll
  for (int p = 0; p < N; ++p) {
    T from[F::INPUTS], to[F::OUTPUTS];
#pragma unroll
    for (int k = 0; k < F::INPUTS; ++k) from[k] = widen(packs[k].values[p]);
    F::apply(from, to);
#pragma unroll
    for (int k = 0; k < F::OUTPUTS; ++k) out[k][p] = to[k];
  }
#pragma unroll
  for (int k = 0; k < F::OUTPUTS; ++k) {
    const View& view = task.views[F::INPUTS + k];
    if (view.data) write<N>(place.in<N, X>(view), out[k]);
  }
}

template <class X, class F, int N>
void launch(const Task& task, cudaStream_t stream) {
  map_kernel<X, F, N><<<task.rows.blocks(), THREADS, 0, stream>>>(task);
  check(cudaGetLastError());
}

// Sizes and strides of one long row where all tensors fill their memory in one order: channels side by side
// need no kernel of their own.
inline void flatten(View* views, int count, Sizes& sizes) {
  bool alike = dense(views[0], sizes);
  for (int k = 1; k < count; ++k) {
    for (int dim = 0; dim < 4; ++dim)
      alike = alike && (!views[k].data || sizes[dim] == 1 || views[k].strides[dim] == views[0].strides[dim]);
  }
  bool adjoin = true;
  for (int k = 0; k < count; ++k) adjoin = adjoin && rows_adjoin(views[k], sizes[3]);
  const int64_t total = sizes[0] * sizes[1] * sizes[2] * sizes[3];
  if (alike && total < int64_t{1} << 32) {
    sizes = {1, 1, 1, total};
    for (int k = 0; k < count; ++k) views[k].strides[3] = 1;
  } else if (adjoin) {
    sizes = {sizes[0], sizes[1], 1, sizes[2] * sizes[3]};
  } else {
    return;
  }
  // of dimensions of one element the strides are of no consequence
  for (int k = 0; k < count; ++k)
    for (int dim = 0; dim < 3; ++dim)
      if (sizes[dim] == 1) views[k].strides[dim] = 0;
}

template <class X, class F>
void execute(Task task, Sizes sizes, cudaStream_t stream) {
  constexpr int COUNT = F::INPUTS + F::OUTPUTS, pixels = PIXELS<X>;
  flatten(task.views, COUNT, sizes);
  bool whole = sizes[3] % pixels == 0;
  for (int k = 0; k < COUNT; ++k) whole = whole && packs(task.views[k], sizeof(X), pixels);
  const bool interleaved = !whole && task.views[0].strides[1] == 1 && task.views[0].strides[3] != 1;
  task.rows = Rows(sizes, whole ? pixels : 1, interleaved);
  whole ? launch<X, F, pixels>(task, stream) : launch<X, F, 1>(task, stream);
}

template <class F>
void dispatch(std::initializer_list<View> views, const Sizes& sizes, int device, void* stream) {
  const OnDevice guard(device);
  Task task{};
  int count = 0;
  for (const View& view : views) task.views[count++] = view;
  const auto s = static_cast<cudaStream_t>(stream);
  switch (task.views[0].dtype) {
    case Dtype::f64:
      return execute<double, F>(task, sizes, s);
    case Dtype::bf16:
      return execute<__nv_bfloat16, F>(task, sizes, s);
    case Dtype::f16:
      return execute<__half, F>(task, sizes, s);
    default:
      return execute<float, F>(task, sizes, s);
  }
}

}  // namespace

void illumination_forward_cuda(const View& x, const View& illum, const View& out, const Sizes& sizes,
                               int device, void* stream) {
  dispatch<DivideForward>({x, illum, out}, sizes, device, stream);
}

void illumination_backward_cuda(const View& grad, const View& x, const View& illum, const View& grad_x,
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
