#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "curve.h"
#include "fastllie.h"

namespace fastllie {
namespace {

constexpr int THREADS = 256;

// Pixels of a thread where rows are contiguous: 16 bytes of float32 or float64. Eight of 16-bit types would
// not leave their states in registers.
template <class X>
constexpr int PIXELS = sizeof(X) == 8 ? 2 : 4;

// Storage types, and the type that the arithmetic uses for them.
template <class S>
struct Wide {
  using type = float;
};
template <>
struct Wide<double> {
  using type = double;
};

__device__ __forceinline__ float widen(float v) { return v; }
__device__ __forceinline__ double widen(double v) { return v; }
__device__ __forceinline__ float widen(__nv_bfloat16 v) { return __bfloat162float(v); }
__device__ __forceinline__ float widen(__half v) { return __half2float(v); }
__device__ __forceinline__ void narrow(float v, float& to) { to = v; }
__device__ __forceinline__ void narrow(double v, double& to) { to = v; }
__device__ __forceinline__ void narrow(float v, __nv_bfloat16& to) { to = __float2bfloat16_rn(v); }
__device__ __forceinline__ void narrow(float v, __half& to) { to = __float2half_rn(v); }
__device__ __forceinline__ float tanh_of(float z) { return tanh_rational(z, 1.0f); }
__device__ __forceinline__ double tanh_of(double z) { return ::tanh(z); }

template <class S, int N>
struct alignas(sizeof(S) * N) Pack {
  S values[N];
};

template <int N, class S, class T>
__device__ __forceinline__ void read(const S* from, T (&to)[N]) {
  const Pack<S, N> pack = *reinterpret_cast<const Pack<S, N>*>(from);
#pragma unroll
  for (int i = 0; i < N; ++i) to[i] = widen(pack.values[i]);
}

template <int N, class S, class T>
__device__ __forceinline__ void write(S* to, const T (&from)[N]) {
  Pack<S, N> pack;
#pragma unroll
  for (int i = 0; i < N; ++i) narrow(from[i], pack.values[i]);
  *reinterpret_cast<Pack<S, N>*>(to) = pack;
}

struct Task {
  View grad, x, alpha, out, grad_alpha;
  int64_t batch, channels, height, width;
  int64_t steps;
  bool interleaved;  // channels lie side by side: neighbouring threads take neighbouring channels
};

// Where the image's element (or pack of pixels) number i lies, in each tensor.
struct Place {
  int64_t b, c, h, w;
  __device__ Place(const Task& task, int64_t i) {
    if (task.interleaved) {
      c = i % task.channels;
      i /= task.channels;
    }
    w = i % task.width;
    i /= task.width;
    h = i % task.height;
    i /= task.height;
    if (!task.interleaved) {
      c = i % task.channels;
      i /= task.channels;
    }
    b = i;
  }
  template <class S>
  __device__ S* in(const View& v, int pixels) const {
    const int64_t offset = b * v.strides[0] + c * v.strides[1] + h * v.strides[2] + w * pixels * v.strides[3];
    return static_cast<S*>(v.data) + offset;
  }
};

template <class T, class A, bool TANH, int N>
__device__ __forceinline__ void read_map(const A* alpha, T (&a)[N]) {
  read<N>(alpha, a);
  if constexpr (TANH) {
#pragma unroll
    for (int i = 0; i < N; ++i) a[i] = tanh_of(a[i]);
  }
}

// N pixels of one channel a thread; width counts packs of N pixels.
template <class X, class A, bool SHARED, bool TANH, int N>
__global__ void __launch_bounds__(THREADS) curve_forward_kernel(const Task task, int64_t total) {
  using T = typename Wide<X>::type;
  for (int64_t i = blockIdx.x * int64_t{THREADS} + threadIdx.x; i < total;
       i += int64_t{gridDim.x} * THREADS) {
    const Place place(task, i);
    const A* alpha = place.in<A>(task.alpha, N);
    const int64_t map_step = task.alpha.strides[1] * task.channels;
    T x[N], a[N];
    read<N>(place.in<X>(task.x, N), x);
    if constexpr (SHARED) read_map<T, A, TANH>(alpha, a);
#pragma unroll 8
    for (int64_t k = 0; k < task.steps; ++k) {
      if constexpr (!SHARED) read_map<T, A, TANH>(alpha + k * map_step, a);
#pragma unroll
      for (int p = 0; p < N; ++p) x[p] = curve_step(x[p], a[p]);
    }
    write<N>(place.in<X>(task.out, N), x);
  }
}

template <class X, class A, bool SHARED, bool TANH, int N>
__global__ void __launch_bounds__(THREADS) curve_backward_kernel(const Task task, int64_t total) {
  using T = typename Wide<X>::type;
  for (int64_t i = blockIdx.x * int64_t{THREADS} + threadIdx.x; i < total;
       i += int64_t{gridDim.x} * THREADS) {
    const Place place(task, i);
    const A* alpha = place.in<A>(task.alpha, N);
    A* grad_alpha = task.grad_alpha.data ? place.in<A>(task.grad_alpha, N) : nullptr;
    const int64_t map_step = task.alpha.strides[1] * task.channels;
    const int64_t grad_map_step = task.grad_alpha.strides[1] * task.channels;
    T x[N], grad[N], shared[N], grad_shared[N] = {};
    read<N>(place.in<X>(task.x, N), x);
    read<N>(place.in<X>(task.grad, N), grad);
    if constexpr (SHARED) read_map<T, A, TANH>(alpha, shared);
    // a chunk's states are recomputed into registers; the state before it from the image, at no memory
    for (int64_t first = (task.steps - 1) / CHUNK * CHUNK; first >= 0; first -= CHUNK) {
      T current[N], states[CHUNK][N], maps[CHUNK][N];
#pragma unroll
      for (int p = 0; p < N; ++p) current[p] = x[p];
      for (int64_t k = 0; k < first; ++k) {
        T a[N];
        if constexpr (!SHARED) read_map<T, A, TANH>(alpha + k * map_step, a);
#pragma unroll
        for (int p = 0; p < N; ++p) current[p] = curve_step(current[p], SHARED ? shared[p] : a[p]);
      }
#pragma unroll
      for (int k = 0; k < CHUNK; ++k) {
        if (first + k < task.steps) {
          if constexpr (!SHARED) read_map<T, A, TANH>(alpha + (first + k) * map_step, maps[k]);
#pragma unroll
          for (int p = 0; p < N; ++p) {
            states[k][p] = current[p];
            current[p] = curve_step(current[p], SHARED ? shared[p] : maps[k][p]);
          }
        }
      }
#pragma unroll
      for (int k = CHUNK - 1; k >= 0; --k) {
        if (first + k < task.steps) {
          T grad_a[N];
#pragma unroll
          for (int p = 0; p < N; ++p) {
            const T a = SHARED ? shared[p] : maps[k][p];
            grad_a[p] = curve_step_backward(states[k][p], a, T(1), grad[p]);
            if constexpr (SHARED) {
              grad_shared[p] += grad_a[p];
            } else if constexpr (TANH) {
              grad_a[p] *= T(1) - a * a;
            }
          }
          if (!SHARED && grad_alpha) write<N>(grad_alpha + (first + k) * grad_map_step, grad_a);
        }
      }
    }
    if (task.out.data) write<N>(place.in<X>(task.out, N), grad);
    if (SHARED && grad_alpha) {
      if constexpr (TANH) {
#pragma unroll
        for (int p = 0; p < N; ++p) grad_shared[p] *= T(1) - shared[p] * shared[p];
      }
      write<N>(grad_alpha, grad_shared);
    }
  }
}

void check(cudaError_t status) {
  if (status != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(status));
}

template <class X, class A, bool SHARED, bool TANH, int N>
void launch(const Task& task, bool backward, cudaStream_t stream) {
  const int64_t total = task.batch * task.channels * task.height * task.width;
  const int64_t blocks = (total + THREADS - 1) / THREADS;
  const dim3 grid(static_cast<unsigned>(blocks < 0x7fffffff ? blocks : 0x7fffffff));
  if (backward) {
    curve_backward_kernel<X, A, SHARED, TANH, N><<<grid, THREADS, 0, stream>>>(task, total);
  } else {
    curve_forward_kernel<X, A, SHARED, TANH, N><<<grid, THREADS, 0, stream>>>(task, total);
  }
  check(cudaGetLastError());
}

bool rows_adjoin(const View& v, int64_t width) { return !v.data || v.strides[2] == width * v.strides[3]; }

bool packs(const View& v, int64_t bytes, int pixels) {
  if (!v.data) return true;
  bool whole = v.strides[3] == 1 && reinterpret_cast<uintptr_t>(v.data) % (bytes * pixels) == 0;
  for (int dim = 0; dim < 3; ++dim) whole = whole && v.strides[dim] % pixels == 0;
  return whole;
}

template <class X, class A>
void execute(Task task, const Curve& curve, bool backward, cudaStream_t stream) {
  View* const views[] = {&task.grad, &task.x, &task.alpha, &task.out, &task.grad_alpha};
  bool adjoin = true;
  for (const View* v : views) adjoin = adjoin && rows_adjoin(*v, task.width);
  if (adjoin) {
    task.width *= task.height;
    task.height = 1;
    for (View* v : views) v->strides[2] = 0;
  }
  constexpr int pixels = PIXELS<X>;
  bool whole = task.width % pixels == 0;
  for (const View* v : {&task.grad, &task.x, &task.out}) whole = whole && packs(*v, sizeof(X), pixels);
  for (const View* v : {&task.alpha, &task.grad_alpha}) whole = whole && packs(*v, sizeof(A), pixels);
  task.interleaved = !whole && task.x.strides[1] == 1 && task.x.strides[3] != 1;

  const auto with = [&](auto shared, auto tanh) {
    if (whole) {
      task.width /= pixels;
      launch<X, A, shared.value, tanh.value, pixels>(task, backward, stream);
    } else {
      launch<X, A, shared.value, tanh.value, 1>(task, backward, stream);
    }
  };
  const std::true_type yes;
  const std::false_type no;
  if (curve.shared) {
    curve.tanh ? with(yes, yes) : with(yes, no);
  } else {
    curve.tanh ? with(no, yes) : with(no, no);
  }
}

// Selects the device of the tensors for the time of one launch.
class OnDevice {
 public:
  explicit OnDevice(int device) {
    check(cudaGetDevice(&before_));
    if (device != before_) check(cudaSetDevice(device));
    changed_ = device != before_;
  }
  ~OnDevice() {
    if (changed_) cudaSetDevice(before_);
  }

 private:
  int before_ = 0;
  bool changed_ = false;
};

void dispatch(const Task& task, const Curve& curve, bool backward, int device, void* stream) {
  const OnDevice guard(device);
  const auto s = static_cast<cudaStream_t>(stream);
  const Dtype x = task.x.dtype, alpha = task.alpha.dtype;
  if (x == Dtype::f64) return execute<double, double>(task, curve, backward, s);
  if (x == Dtype::bf16) return execute<__nv_bfloat16, __nv_bfloat16>(task, curve, backward, s);
  if (x == Dtype::f16) return execute<__half, __half>(task, curve, backward, s);
  if (alpha == Dtype::bf16) return execute<float, __nv_bfloat16>(task, curve, backward, s);
  if (alpha == Dtype::f16) return execute<float, __half>(task, curve, backward, s);
  execute<float, float>(task, curve, backward, s);
}

Task task_of(const Curve& curve, const View& grad, const View& x, const View& alpha, const View& out,
             const View& grad_alpha) {
  const auto& [batch, channels, height, width] = curve.sizes;
  return {grad, x, alpha, out, grad_alpha, batch, channels, height, width, curve.steps, false};
}

}  // namespace

void curve_forward_cuda(const View& x, const View& alpha, const View& out, const Curve& curve, int device,
                        void* stream) {
  const View none{nullptr, x.dtype, {}};
  dispatch(task_of(curve, none, x, alpha, out, none), curve, false, device, stream);
}

void curve_backward_cuda(const View& grad, const View& x, const View& alpha, const View& grad_x,
                         const View& grad_alpha, const Curve& curve, int device, void* stream) {
  dispatch(task_of(curve, grad, x, alpha, grad_x, grad_alpha), curve, true, device, stream);
}

}  // namespace fastllie
