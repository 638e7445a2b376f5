#include "access.cuh"

namespace fastllie {
namespace {

struct Task {
  View grad, x, alpha, out, grad_alpha;
  Rows rows;
  int64_t map_step, grad_map_step;  // from a step's maps to the next one's
  int steps;
};

template <bool TANH, class A, class T, int N>
__device__ __forceinline__ void map_of(const Pack<A, N>& pack, T (&a)[N]) {
  widen(pack, a);
  if constexpr (TANH) {
#pragma unroll
    for (int p = 0; p < N; ++p) a[p] = tanh_of(a[p]);
  }
}

template <class T, int N>
__device__ __forceinline__ void step(T (&x)[N], const T (&a)[N]) {
#pragma unroll
  for (int p = 0; p < N; ++p) x[p] = curve_step(x[p], a[p]);
}

// The maps of so many steps, all on their way before the first is used.
template <int COUNT, class A, int N>
__device__ __forceinline__ void load_maps(const A* from, int64_t map_step, Pack<A, N> (&to)[COUNT]) {
#pragma unroll
  for (int k = 0; k < COUNT; ++k) to[k] = load<N>(from + k * map_step);
}

// N pixels of one channel a thread
template <class X, class A, bool SHARED, bool TANH, int N>
__global__ void __launch_bounds__(THREADS) curve_forward_kernel(const __grid_constant__ Task task) {
  using T = typename Wide<X>::type;
  const Place place(task.rows);
  if (!place.inside) return;
  const A* alpha = place.in<N, A>(task.alpha);
  const Pack<X, N> image = load<N>(place.in<N, X>(task.x));
  T x[N], a[N];
  if constexpr (SHARED) {
    map_of<TANH>(load<N>(alpha), a);
    widen(image, x);
    for (int k = 0; k < task.steps; ++k) step(x, a);
  } else {
    int k = 0;
    widen(image, x);
    for (; k + CHUNK <= task.steps; k += CHUNK, alpha += CHUNK * task.map_step) {
      Pack<A, N> maps[CHUNK];
      load_maps(alpha, task.map_step, maps);
#pragma unroll
      for (int i = 0; i < CHUNK; ++i) {
        map_of<TANH>(maps[i], a);
        step(x, a);
      }
    }
    for (; k < task.steps; ++k, alpha += task.map_step) {
      map_of<TANH>(load<N>(alpha), a);
      step(x, a);
    }
  }
  write<N>(place.in<N, X>(task.out), x);
}

// COUNT steps back: the states after `current` are recomputed into registers.
template <int COUNT, bool TANH, class A, class T, int N>
__device__ __forceinline__ void steps_backward(const A* alpha, A* grad_alpha, const Task& task,
                                               T (&current)[N], T (&grad)[N]) {
  Pack<A, N> packs[COUNT];
  load_maps(alpha, task.map_step, packs);
  T states[COUNT][N], maps[COUNT][N];
#pragma unroll
  for (int k = 0; k < COUNT; ++k) {
    map_of<TANH>(packs[k], maps[k]);
#pragma unroll
    for (int p = 0; p < N; ++p) states[k][p] = current[p];
    step(current, maps[k]);
  }
#pragma unroll
  for (int k = COUNT - 1; k >= 0; --k) {
    T grad_a[N];
#pragma unroll
    for (int p = 0; p < N; ++p) {
      grad_a[p] = curve_step_backward(states[k][p], maps[k][p], T(1), grad[p]);
      if constexpr (TANH) grad_a[p] *= T(1) - maps[k][p] * maps[k][p];
    }
    if (grad_alpha) write<N>(grad_alpha + k * task.grad_map_step, grad_a);
  }
}

// The same where all steps have one map, whose gradients are added up.
template <int COUNT, class T, int N>
__device__ __forceinline__ void steps_backward_shared(const T (&a)[N], T (&current)[N], T (&grad)[N],
                                                      T (&grad_shared)[N]) {
  T states[COUNT][N];
#pragma unroll
  for (int k = 0; k < COUNT; ++k) {
#pragma unroll
    for (int p = 0; p < N; ++p) states[k][p] = current[p];
    step(current, a);
  }
#pragma unroll
  for (int k = COUNT - 1; k >= 0; --k) {
#pragma unroll
    for (int p = 0; p < N; ++p) grad_shared[p] += curve_step_backward(states[k][p], a[p], T(1), grad[p]);
  }
}

template <class X, class A, bool SHARED, bool TANH, int N>
__global__ void __launch_bounds__(THREADS) curve_backward_kernel(const __grid_constant__ Task task) {
  using T = typename Wide<X>::type;
  const Place place(task.rows);
  if (!place.inside) return;
  const A* alpha = place.in<N, A>(task.alpha);
  A* grad_alpha = task.grad_alpha.data ? place.in<N, A>(task.grad_alpha) : nullptr;
  const Pack<X, N> image = load<N>(place.in<N, X>(task.x)), given = load<N>(place.in<N, X>(task.grad));
  T grad[N], a[N], grad_shared[N] = {};
  widen(given, grad);
  if constexpr (SHARED) map_of<TANH>(load<N>(alpha), a);
  // `count` steps from `first` on: the state before them from the image, at no memory
  const auto back = [&](auto count, int first) {
    T current[N];
    widen(image, current);
    for (int k = 0; k < first; ++k) {
      if constexpr (!SHARED) map_of<TANH>(load<N>(alpha + k * task.map_step), a);
      step(current, a);
    }
    if constexpr (SHARED) {
      steps_backward_shared<count.value>(a, current, grad, grad_shared);
    } else {
      A* const to = grad_alpha ? grad_alpha + first * task.grad_map_step : nullptr;
      steps_backward<count.value, TANH>(alpha + first * task.map_step, to, task, current, grad);
    }
  };
  int left = task.steps;
  for (; left % CHUNK; --left) back(std::integral_constant<int, 1>(), left - 1);
  for (; left; left -= CHUNK) back(std::integral_constant<int, CHUNK>(), left - CHUNK);
  if (task.out.data) write<N>(place.in<N, X>(task.out), grad);
  if (SHARED && grad_alpha) {
    if constexpr (TANH) {
#pragma unroll
      for (int p = 0; p < N; ++p) grad_shared[p] *= T(1) - a[p] * a[p];
    }
    write<N>(grad_alpha, grad_shared);
  }
}

// Pixels of a thread of the backward: of eight the states would not stay in registers
template <class X>
constexpr int BACKWARD_PIXELS = sizeof(X) == 2 ? 4 : PIXELS<X>;

template <class X, class A, bool SHARED, bool TANH, int N>
void launch(const Task& task, bool backward, cudaStream_t stream) {
  if (backward) {
    constexpr int M = N > BACKWARD_PIXELS<X> ? BACKWARD_PIXELS<X> : N;
    curve_backward_kernel<X, A, SHARED, TANH, M><<<task.rows.blocks(), THREADS, 0, stream>>>(task);
  } else {
    curve_forward_kernel<X, A, SHARED, TANH, N><<<task.rows.blocks(), THREADS, 0, stream>>>(task);
  }
  check(cudaGetLastError());
}

template <class X, class A>
void execute(Task task, const Curve& curve, bool backward, cudaStream_t stream) {
  Sizes sizes = curve.sizes;
  View* const views[] = {&task.grad, &task.x, &task.alpha, &task.out, &task.grad_alpha};
  bool adjoin = true;
  for (const View* v : views) adjoin = adjoin && rows_adjoin(*v, sizes[3]);
  if (adjoin) {
    sizes = {sizes[0], sizes[1], 1, sizes[2] * sizes[3]};
    for (View* v : views) v->strides[2] = 0;
  }
  const int pixels = backward ? BACKWARD_PIXELS<X> : PIXELS<X>;
  bool whole = sizes[3] % pixels == 0;
  for (const View* v : {&task.grad, &task.x, &task.out}) whole = whole && packs(*v, sizeof(X), pixels);
  for (const View* v : {&task.alpha, &task.grad_alpha}) whole = whole && packs(*v, sizeof(A), pixels);
  const bool interleaved = !whole && task.x.strides[1] == 1 && task.x.strides[3] != 1;
  task.rows = Rows(sizes, whole ? pixels : 1, interleaved);

  const auto with = [&](auto shared, auto tanh) {
    whole ? launch<X, A, shared.value, tanh.value, PIXELS<X>>(task, backward, stream)
          : launch<X, A, shared.value, tanh.value, 1>(task, backward, stream);
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
  const int64_t channels = curve.sizes[1];
  const int64_t map_step = alpha.strides[1] * channels, grad_map_step = grad_alpha.strides[1] * channels;
  return {grad, x, alpha, out, grad_alpha, {}, map_step, grad_map_step, static_cast<int>(curve.steps)};
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
