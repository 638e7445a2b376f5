#include "access.cuh"
#include "zero_reference.h"

namespace fastllie {
namespace {

constexpr int WARP = 32, WARPS = 4;
// The forward: a block takes the columns of a warp and the rows of a patch, each warp those of a cell.
constexpr int PATCHES = WARP / int(PATCH);
static_assert(WARPS * CELL == PATCH);
// The backward: a warp's first and last lane hold the pixels beside those that it works on.
constexpr int COLUMNS = WARP - 2, ROWS = 4;
constexpr unsigned ALL = 0xffffffff;

struct Task {
  int64_t sizes[4], steps;
  View x, alpha, grad_x, grad_alpha;  // a null gradient is not wanted
  void *cells, *patches;
  double* parts;
  const void *slopes, *channels;
  const double* grad;
  int64_t across, down;  // blocks
};

__device__ __forceinline__ int64_t clamp(int64_t value, int64_t size) {
  return value < 0 ? 0 : value < size ? value : size - 1;
}

template <class A, bool TANH, class T>
__device__ __forceinline__ void read_map(const A* from, T& to) {
  to = widen(*from);
  if constexpr (TANH) to = tanh_of(to);
}

template <class T>
__device__ __forceinline__ T sum_of_lanes(T value, int lanes) {
  for (int step = lanes / 2; step > 0; step /= 2) value += __shfl_xor_sync(ALL, value, step);
  return value;
}

template <class X, class A, bool SHARED, bool TANH>
__global__ void __launch_bounds__(WARP* WARPS) forward_kernel(const Task task) {
  using T = typename Wide<X>::type;
  constexpr int SIDE = int(CELL);
  __shared__ double parts[5][WARPS];
  __shared__ T patches[PATCHES][WARPS];
  const int64_t height = task.sizes[2], width = task.sizes[3];
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  int64_t block = blockIdx.x;
  const int64_t left = block % task.across * WARP, column = left + lane;
  block /= task.across;
  const int64_t row = block % task.down * PATCH + warp * SIDE, b = block / task.down;

  // beyond the image the nearest pixel is read, and not added up
  const int64_t x = clamp(column, width);
  bool inside[SIDE];
#pragma unroll
  for (int r = 0; r < SIDE; ++r) inside[r] = column < width && row + r < height;
  T change = 0, grey = 0, vertical = 0, horizontal = 0;
  double sums[5];
  for (int c = 0; c < 3; ++c) {
    T given[SIDE], value[SIDE];
    const A *maps[SIDE + 1], *edges;
#pragma unroll
    for (int r = 0; r < SIDE; ++r) {
      const int64_t y = clamp(row + r, height);
      given[r] = value[r] = widen(*at<X>(task.x, b, c, y, x));
      maps[r + 1] = at<A>(task.alpha, b, c, y, x);
    }
    maps[0] = at<A>(task.alpha, b, c, clamp(row - 1, height), x);
    // each of the first lanes holds what is left of the warp in one row
    edges = at<A>(task.alpha, b, c, clamp(row + lane % SIDE, height), clamp(left - 1, width));
    T a[SIDE];
    for (int64_t k = 0; k < task.steps; ++k) {
      if (k == 0 || !SHARED) {
        const int64_t step = k * 3 * task.alpha.strides[1];
        T up, edge;
        read_map<A, TANH>(maps[0] + step, up);
        read_map<A, TANH>(edges + step, edge);
#pragma unroll
        for (int r = 0; r < SIDE; ++r) {
          read_map<A, TANH>(maps[r + 1] + step, a[r]);
          T before = __shfl_up_sync(ALL, a[r], 1);
          const T beside = __shfl_sync(ALL, edge, r);
          if (lane == 0) before = beside;
          const T down = a[r] - up, across = a[r] - before;
          vertical += inside[r] ? down * down : T(0);
          horizontal += inside[r] ? across * across : T(0);
          up = a[r];
        }
      }
#pragma unroll
      for (int r = 0; r < SIDE; ++r) value[r] = curve_step(value[r], a[r]);
    }
    T sum = 0;
#pragma unroll
    for (int r = 0; r < SIDE; ++r) {
      sum += inside[r] ? value[r] : T(0);
      change += value[r] - given[r];
    }
    grey += sum;
    sums[c] = double(sum);
  }
  sums[3] = double(vertical);
  sums[4] = double(horizontal);

  change = sum_of_lanes(change, SIDE);
  const int64_t cells_down = height / CELL, cells_across = width / CELL;
  const int64_t cell_row = row / CELL, cell = column / CELL;
  if (lane % SIDE == 0 && cell_row < cells_down && cell < cells_across)
    static_cast<T*>(task.cells)[(b * cells_down + cell_row) * cells_across + cell] =
        change / T(3 * CELL * CELL);

  // in an order that is always the same
  grey = sum_of_lanes(grey, int(PATCH));
  if (lane % PATCH == 0) patches[lane / PATCH][warp] = grey;
#pragma unroll
  for (int i = 0; i < 5; ++i) {
    const double sum = sum_of_lanes(sums[i], WARP);
    if (lane == 0) parts[i][warp] = sum;
  }
  __syncthreads();
  if (threadIdx.x < 5) {
    double sum = 0;
    for (int w = 0; w < WARPS; ++w) sum += parts[threadIdx.x][w];
    task.parts[blockIdx.x * int64_t{5} + threadIdx.x] = sum;
  }
  const int64_t patches_down = height / PATCH, patches_across = width / PATCH;
  const int64_t patch_row = row / PATCH, patch = left / PATCH + threadIdx.x;
  if (threadIdx.x < PATCHES && patch_row < patches_down && patch < patches_across) {
    T sum = 0;
    for (int w = 0; w < WARPS; ++w) sum += patches[threadIdx.x][w];
    static_cast<T*>(task.patches)[(b * patches_down + patch_row) * patches_across + patch] =
        sum / T(3 * PATCH * PATCH);
  }
}

// The maps of a chunk of steps, or the shared one.
template <class A, bool TANH, class T, int MAPS>
__device__ __forceinline__ void read_maps(const Task& task, const A* from, int64_t first, T (&to)[MAPS]) {
#pragma unroll
  for (int k = 0; k < MAPS; ++k) {
    if (MAPS == 1 || first + k < task.steps)
      read_map<A, TANH>(from + (MAPS == 1 ? 0 : first + k) * 3 * task.alpha.strides[1], to[k]);
  }
}

template <class X, class A, bool SHARED, bool TANH>
__global__ void __launch_bounds__(WARP* WARPS) backward_kernel(const Task task) {
  using T = typename Wide<X>::type;
  constexpr int MAPS = SHARED ? 1 : CHUNK;
  const int64_t height = task.sizes[2], width = task.sizes[3];
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  // neighbouring blocks take the channels of the same pixels, which may lie side by side
  int64_t block = blockIdx.x;
  const int64_t c = block % 3;
  block /= 3;
  const int64_t column = block % task.across * COLUMNS + lane - 1;
  block /= task.across;
  const int64_t top = (block % task.down * WARPS + warp) * ROWS, b = block / task.down;
  if (top >= height) return;
  // at the border of the image a pixel is its own neighbour
  const int64_t x = clamp(column, width);
  const bool mine = lane > 0 && lane <= COLUMNS && column < width;
  const VariationFactors factors = variation_factors(task.sizes, *task.grad);
  const T vertical = T(factors.vertical), horizontal = T(factors.horizontal);

  const int64_t cells_down = height / CELL, cells_across = width / CELL;
  const T* const slopes = static_cast<const T*>(task.slopes) + b * 2 * cells_down * cells_across;
  const T channel = static_cast<const T*>(task.channels)[b * 3 + c];
  T image[ROWS], grad[ROWS], direct[ROWS], grad_shared[ROWS] = {};
#pragma unroll
  for (int r = 0; r < ROWS; ++r) {
    const int64_t cell_row = (top + r) / CELL, cell = x / CELL;
    const bool whole = cell_row < cells_down && cell < cells_across;
    image[r] = widen(*at<X>(task.x, b, c, clamp(top + r, height), x));
    grad[r] = channel + (whole ? slopes[cell_row * cells_across + cell] : T(0));
    direct[r] = whole ? slopes[(cells_down + cell_row) * cells_across + cell] : T(0);
  }
  // a chunk's states are recomputed into registers; the state before it from the image, at no memory
  for (int64_t first = (task.steps - 1) / CHUNK * CHUNK; first >= 0; first -= CHUNK) {
    const auto maps_at = [&](int64_t y) { return at<A>(task.alpha, b, c, clamp(y, height), x); };
    T above[MAPS], here[MAPS], below[MAPS];
    read_maps<A, TANH>(task, maps_at(top - 1), first, above);
    read_maps<A, TANH>(task, maps_at(top), first, here);
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
      const A* const maps = maps_at(top + r);
      read_maps<A, TANH>(task, maps_at(top + r + 1), first, below);
      T current = image[r], states[CHUNK];
      for (int64_t k = 0; k < first; ++k) {
        T a = here[0];
        if constexpr (!SHARED) read_map<A, TANH>(maps + k * 3 * task.alpha.strides[1], a);
        current = curve_step(current, a);
      }
#pragma unroll
      for (int k = 0; k < CHUNK; ++k) {
        if (first + k < task.steps) {
          states[k] = current;
          current = curve_step(current, here[SHARED ? 0 : k]);
        }
      }
      const bool written = mine && top + r < height;
      A* const to = task.grad_alpha.data && written
                        ? const_cast<A*>(at<A>(task.grad_alpha, b, c, top + r, column))
                        : nullptr;
      // every lane of a warp takes part: its neighbours ask for its maps
      const auto finish = [&](int k, T grad_a) {
        const T a = here[k];
        const T before = __shfl_up_sync(ALL, a, 1), behind = __shfl_down_sync(ALL, a, 1);
        grad_a += variation_slope(a, above[k], below[k], before, behind, vertical, horizontal);
        if constexpr (TANH) grad_a *= T(1) - a * a;
        if (to) narrow(grad_a, to[(SHARED ? 0 : first + k) * 3 * task.grad_alpha.strides[1]]);
      };
#pragma unroll
      for (int k = CHUNK - 1; k >= 0; --k) {
        if (first + k < task.steps) {
          const T grad_a = curve_step_backward(states[k], here[SHARED ? 0 : k], T(1), grad[r]);
          if constexpr (SHARED) {
            grad_shared[r] += grad_a;
          } else {
            finish(k, grad_a);
          }
        }
      }
      if constexpr (SHARED) {
        if (first == 0) finish(0, grad_shared[r]);
      }
      if (first == 0 && task.grad_x.data && written)
        narrow(grad[r] + direct[r], *const_cast<X*>(at<X>(task.grad_x, b, c, top + r, column)));
#pragma unroll
      for (int k = 0; k < MAPS; ++k) {
        above[k] = here[k];
        here[k] = below[k];
      }
    }
  }
}

template <class X, class A, bool SHARED, bool TANH>
void launch(Task task, bool backward, cudaStream_t stream) {
  task.across = tiles(task.sizes[3], backward ? COLUMNS : WARP);
  task.down = tiles(task.sizes[2], backward ? WARPS * ROWS : int(PATCH));
  const int64_t blocks = task.sizes[0] * task.down * task.across;
  if (backward) {
    backward_kernel<X, A, SHARED, TANH>
        <<<dim3(static_cast<unsigned>(blocks * 3)), WARP * WARPS, 0, stream>>>(task);
  } else {
    forward_kernel<X, A, SHARED, TANH>
        <<<dim3(static_cast<unsigned>(blocks)), WARP * WARPS, 0, stream>>>(task);
  }
  check(cudaGetLastError());
}

template <class X, class A>
void launch(const Task& task, const Curve& curve, bool backward, cudaStream_t stream) {
  if (curve.shared) {
    curve.tanh ? launch<X, A, true, true>(task, backward, stream)
               : launch<X, A, true, false>(task, backward, stream);
  } else {
    curve.tanh ? launch<X, A, false, true>(task, backward, stream)
               : launch<X, A, false, false>(task, backward, stream);
  }
}

void execute(Task task, const Curve& curve, bool backward, int device, void* stream) {
  const OnDevice guard(device);
  for (int i = 0; i < 4; ++i) task.sizes[i] = curve.sizes[i];
  task.steps = curve.steps;
  const auto s = static_cast<cudaStream_t>(stream);
  const Dtype x = task.x.dtype, alpha = task.alpha.dtype;
  if (x == Dtype::f64) return launch<double, double>(task, curve, backward, s);
  if (x == Dtype::bf16) return launch<__nv_bfloat16, __nv_bfloat16>(task, curve, backward, s);
  if (x == Dtype::f16) return launch<__half, __half>(task, curve, backward, s);
  if (alpha == Dtype::bf16) return launch<float, __nv_bfloat16>(task, curve, backward, s);
  if (alpha == Dtype::f16) return launch<float, __half>(task, curve, backward, s);
  launch<float, float>(task, curve, backward, s);
}

}  // namespace

int64_t zero_reference_blocks_cuda(const Sizes& sizes) {
  return sizes[0] * tiles(sizes[2], int(PATCH)) * tiles(sizes[3], WARP);
}

void zero_reference_forward_cuda(const View& x, const View& alpha, void* cells, void* patches, double* parts,
                                 const Curve& curve, int device, void* stream) {
  Task task{};
  task.x = x;
  task.alpha = alpha;
  task.cells = cells;
  task.patches = patches;
  task.parts = parts;
  execute(task, curve, false, device, stream);
}

void zero_reference_backward_cuda(const View& x, const View& alpha, const void* slopes, const void* channels,
                                  const double* grad, const View& grad_x, const View& grad_alpha,
                                  const Curve& curve, int device, void* stream) {
  Task task{};
  task.x = x;
  task.alpha = alpha;
  task.grad_x = grad_x;
  task.grad_alpha = grad_alpha;
  task.slopes = slopes;
  task.channels = channels;
  task.grad = grad;
  execute(task, curve, true, device, stream);
}

}  // namespace fastllie
