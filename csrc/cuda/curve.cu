#include "access.cuh"

namespace fastllie {
namespace {

struct Task {
  View grad, x, alpha, out, grad_alpha;
  Grid grid;
  int64_t steps;
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
    const Place place(task.grid, i);
    const A* alpha = place.in<A>(task.alpha, N);
    const int64_t map_step = task.alpha.strides[1] * task.grid.channels;
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
    const Place place(task.grid, i);
    const A* alpha = place.in<A>(task.alpha, N);
    A* grad_alpha = task.grad_alpha.data ? place.in<A>(task.grad_alpha, N) : nullptr;
    const int64_t map_step = task.alpha.strides[1] * task.grid.channels;
    const int64_t grad_map_step = task.grad_alpha.strides[1] * task.grid.channels;
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

template <class X, class A, bool SHARED, bool TANH, int N>
void launch(const Task& task, bool backward, cudaStream_t stream) {
  const Grid& grid = task.grid;
  const int64_t total = grid.batch * grid.channels * grid.height * grid.width;
  if (backward) {
    curve_backward_kernel<X, A, SHARED, TANH, N><<<blocks_for(total), THREADS, 0, stream>>>(task, total);
  } else {
    curve_forward_kernel<X, A, SHARED, TANH, N><<<blocks_for(total), THREADS, 0, stream>>>(task, total);
  }
  check(cudaGetLastError());
}

template <class X, class A>
void execute(Task task, const Curve& curve, bool backward, cudaStream_t stream) {
  View* const views[] = {&task.grad, &task.x, &task.alpha, &task.out, &task.grad_alpha};
  bool adjoin = true;
  for (const View* v : views) adjoin = adjoin && rows_adjoin(*v, task.grid.width);
  if (adjoin) {
    task.grid.width *= task.grid.height;
    task.grid.height = 1;
    for (View* v : views) v->strides[2] = 0;
  }
  constexpr int pixels = PIXELS<X>;
  bool whole = task.grid.width % pixels == 0;
  for (const View* v : {&task.grad, &task.x, &task.out}) whole = whole && packs(*v, sizeof(X), pixels);
  for (const View* v : {&task.alpha, &task.grad_alpha}) whole = whole && packs(*v, sizeof(A), pixels);
  task.grid.interleaved = !whole && task.x.strides[1] == 1 && task.x.strides[3] != 1;

  const auto with = [&](auto shared, auto tanh) {
    if (whole) {
      task.grid.width /= pixels;
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
  return {grad, x, alpha, out, grad_alpha, {batch, channels, height, width, false}, curve.steps};
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
