#include "zero_reference.h"

#include "zero_reference_maps.cuh"
#include "zero_reference_means.cuh"

namespace fastllie {
namespace {

template <class X, class A, bool SHARED, bool TANH, bool EIGHT>
__global__ void __launch_bounds__(WARP* WARPS, 8) forward_kernel(const __grid_constant__ Task task) {
  using T = typename Wide<X>::type;
  constexpr bool ROTATE = SHARED || EIGHT;
  constexpr int MAPS = SHARED ? 1 : CHUNK;
  // of each lane: how much brighter the channels so far are, in the four rows of a cell
  __shared__ T changes[WARPS][ROWS / SIDE][WARP];
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  const unsigned unit = blockIdx.x * WARPS + warp;
  if (unit >= task.units) return;
  const Corner corner(task, unit, WARP);
  const int column = corner.left + lane, x = min(column, task.width - 1);
  const int64_t step = 3 * task.alpha.strides[1], steps = EIGHT ? CHUNK : task.steps;
  const int64_t maps_of_pixel = SHARED ? 1 : steps;

  T grey = 0;
  double sums[PARTS] = {};
  for (int c = 0; c < 3; ++c) {
    const X* image = at<X>(task.x, corner.b, c, corner.top, x);
    const A* maps = at<A>(task.alpha, corner.b, c, corner.top, x);
    const A* before = corner.top ? maps - task.alpha.strides[2] : maps;
    T above[MAPS];
    if constexpr (ROTATE) read_maps<EIGHT, TANH>(task, before, 0, above);
    T vertical = 0, horizontal = 0, beside = 0, total = 0;
#pragma unroll 1
    for (int cell = 0; cell < ROWS / SIDE; ++cell) {
      T change = 0;
      const int end = min((cell + 1) * SIDE, corner.rows);
#pragma unroll 1
      for (int r = cell * SIDE; r < end; ++r) {
        const T given = widen(*image);
        T value = given;
        if constexpr (ROTATE) {
          T here[MAPS];
          read_maps<EIGHT, TANH>(task, maps, 0, here);
#pragma unroll
          for (int k = 0; k < MAPS; ++k) {
            vary(here[k], above[k], vertical, horizontal);
            above[k] = here[k];
          }
#pragma unroll
          for (int64_t k = 0; k < steps; ++k) value = curve_step(value, here[SHARED ? 0 : k]);
        } else {
#pragma unroll 1
          for (int64_t k = 0; k < steps; ++k) {
            T a, up;
            read_map<A, TANH>(maps + k * step, a);
            read_map<A, TANH>(before + k * step, up);
            vary(a, up, vertical, horizontal);
            value = curve_step(value, a);
          }
          before = maps;
        }
        change += value - given;
        total += value;
        image += task.x.strides[2];
        maps += task.alpha.strides[2];
      }
      changes[warp][cell][lane] = c ? changes[warp][cell][lane] + change : change;
    }
    // the column before the warp's first: of each row one lane holds one of the two pixels
    const int r = lane % ROWS, y = min(corner.top + r, task.height - 1);
    const int edge = lane < ROWS ? max(corner.left - 1, 0) : corner.left;
    const A* from = at<A>(task.alpha, corner.b, c, y, edge);
#pragma unroll 1
    for (int64_t k = 0; k < maps_of_pixel; ++k) {
      T a;
      read_map<A, TANH>(from + k * step, a);
      const T apart = a - __shfl_xor_sync(ALL, a, ROWS);
      beside += apart * apart;
    }
    // beyond the image the nearest pixel was read
    const bool inside = column < task.width;
    horizontal += lane < corner.rows ? beside : T(0);
    grey += inside ? total : T(0);
    total = sum_of_lanes(inside ? total : T(0), WARP);
    if (c == 0) sums[0] = double(total);
    if (c == 1) sums[1] = double(total);
    if (c == 2) sums[2] = double(total);
    sums[3] += double(inside ? vertical : T(0));
    sums[4] += double(horizontal);
  }

  const int64_t cells_down = task.height / SIDE, cells_across = task.width / SIDE;
#pragma unroll 1
  for (int cell = 0; cell < ROWS / SIDE; ++cell) {
    const T change = sum_of_lanes(changes[warp][cell][lane], SIDE);
    const int i = corner.top / SIDE + cell, j = column / SIDE;
    if (lane % SIDE == 0 && i < cells_down && j < cells_across)
      static_cast<T*>(task.cells)[(corner.b * cells_down + i) * cells_across + j] =
          change * T(1.0 / (3 * SIDE * SIDE));
  }
  const int64_t patches_down = task.height / ROWS, patches_across = task.width / ROWS;
  const int i = corner.top / ROWS, j = column / ROWS;
  grey = sum_of_lanes(grey, ROWS);
  if (lane % ROWS == 0 && i < patches_down && j < patches_across)
    static_cast<T*>(task.patches)[(corner.b * patches_down + i) * patches_across + j] =
        grey * T(1.0 / (3 * ROWS * ROWS));
  double* const to = task.parts + unit * int64_t{PARTS};
#pragma unroll
  for (int k = 0; k < PARTS; ++k) {
    const double sum = k < 3 ? sums[k] : sum_of_lanes(sums[k], WARP);
    if (lane == k) to[k] = sum;
  }
}

template <class X, class A, bool SHARED, bool TANH, bool EIGHT>
__global__ void __launch_bounds__(WARP* WARPS, EIGHT ? 5 : 3)
    backward_kernel(const __grid_constant__ Task task) {
  using T = typename Wide<X>::type;
  constexpr bool ROTATE = SHARED || EIGHT;
  constexpr int MAPS = SHARED ? 1 : CHUNK;
  const int lane = threadIdx.x % WARP;
  // neighbouring warps take the channels of the same pixels, which may lie side by side
  const unsigned unit = blockIdx.x * WARPS + threadIdx.x / WARP, c = unit % 3;
  if (unit >= task.units) return;
  const Corner corner(task, unit / 3, COLUMNS);
  const int column = corner.left + lane - 1;
  // at the border of the image a pixel is its own neighbour
  const int x = min(max(column, 0), task.width - 1);
  const bool mine = lane > 0 && lane <= COLUMNS && column < task.width;
  const T* const losses = static_cast<const T*>(task.grad);
  const int cells_down = task.height / SIDE, cells_across = task.width / SIDE;
  const int patches_down = task.height / ROWS, patches_across = task.width / ROWS;
  // of what lies in one patch of one channel
  T common = T(task.colour) * losses[2 * task.grad_stride] *
             slope_of_colour<T>(task.means + corner.b * int64_t{3}, int(c));
  if (corner.top / ROWS < patches_down && x / ROWS < patches_across) {
    const int64_t patch = (corner.b * int64_t{patches_down} + corner.top / ROWS) * patches_across + x / ROWS;
    const T apart = static_cast<const T*>(task.patches)[patch] - T(task.level);
    common += T(task.exposure) * losses[3 * task.grad_stride] * apart;
  }
  const T vertical = T(task.vertical) * losses[0], horizontal = T(task.horizontal) * losses[0];
  const T spatial = T(task.spatial) * losses[task.grad_stride];
  const T* const cells = static_cast<const T*>(task.cells) + corner.b * (int64_t{cells_down} * cells_across);
  const int64_t steps = EIGHT ? CHUNK : task.steps;
  const int64_t step = 3 * task.alpha.strides[1], grad_step = 3 * task.grad_alpha.strides[1];

  const X* image = at<X>(task.x, corner.b, c, corner.top, x);
  const A* maps = at<A>(task.alpha, corner.b, c, corner.top, x);
  const A* previous = corner.top ? maps - task.alpha.strides[2] : maps;
  X* to_x = const_cast<X*>(at<X>(task.grad_x, corner.b, c, corner.top, x));
  A* to = const_cast<A*>(at<A>(task.grad_alpha, corner.b, c, corner.top, x));
  const bool to_image = mine && task.grad_x.data, to_maps = mine && task.grad_alpha.data;
  T above[MAPS], here[MAPS], below[MAPS];
  if constexpr (ROTATE) {
    read_maps<EIGHT, TANH>(task, previous, 0, above);
    read_maps<EIGHT, TANH>(task, maps, 0, here);
  }
#pragma unroll 1
  for (int cell = 0; cell < ROWS / SIDE; ++cell) {
    const int i = corner.top / SIDE + cell, j = x / SIDE;
    T direct = 0;
    if (i < cells_down && j < cells_across)
      direct = spatial * slope_of_steps<T>(cells, cells_down, cells_across, i, j);
    const int end = min((cell + 1) * SIDE, corner.rows);
#pragma unroll 1
    for (int r = cell * SIDE; r < end; ++r) {
      const A* const next = corner.top + r + 1 < task.height ? maps + task.alpha.strides[2] : maps;
      if constexpr (ROTATE) read_maps<EIGHT, TANH>(task, next, 0, below);
      T grad = direct + common, grad_shared = 0;
      A* at_step = to + (SHARED ? 0 : steps - 1) * grad_step;
      // every lane of a warp takes part: its neighbours ask for its maps
      const auto finish = [&](int k, T grad_a) {
        const T a = here[k];
        const T before = __shfl_up_sync(ALL, a, 1), behind = __shfl_down_sync(ALL, a, 1);
        grad_a += variation_slope(a, above[k], below[k], before, behind, vertical, horizontal);
        if constexpr (TANH) grad_a *= T(1) - a * a;
        if (to_maps) narrow(grad_a, *at_step);
        at_step -= grad_step;
      };
      // a chunk's states are recomputed into registers; the state before it from the image, at no memory
      for (int64_t first = (steps - 1) / CHUNK * CHUNK; first >= 0; first -= CHUNK) {
        if constexpr (!ROTATE) {
          read_maps<EIGHT, TANH>(task, previous, first, above);
          read_maps<EIGHT, TANH>(task, maps, first, here);
          read_maps<EIGHT, TANH>(task, next, first, below);
        }
        T current = widen(*image), states[CHUNK];
#pragma unroll 1
        for (int64_t k = 0; k < first; ++k) {
          T a = here[0];
          if constexpr (!SHARED) read_map<A, TANH>(maps + k * step, a);
          current = curve_step(current, a);
        }
#pragma unroll
        for (int k = 0; k < CHUNK; ++k) {
          if (EIGHT || first + k < steps) {
            states[k] = current;
            current = curve_step(current, here[SHARED ? 0 : k]);
          }
        }
#pragma unroll
        for (int k = CHUNK - 1; k >= 0; --k) {
          if (EIGHT || first + k < steps) {
            const T grad_a = curve_step_backward(states[k], here[SHARED ? 0 : k], T(1), grad);
            if constexpr (SHARED) {
              grad_shared += grad_a;
            } else {
              finish(k, grad_a);
            }
          }
        }
      }
      if constexpr (SHARED) finish(0, grad_shared);
      if (to_image) narrow(grad - direct, *to_x);
      if constexpr (ROTATE) {
#pragma unroll
        for (int k = 0; k < MAPS; ++k) {
          above[k] = here[k];
          here[k] = below[k];
        }
      }
      previous = maps;
      maps += task.alpha.strides[2];
      image += task.x.strides[2];
      to += task.grad_alpha.strides[2];
      to_x += task.grad_x.strides[2];
    }
  }
}

// What chooses the kernel.
struct Kind {
  bool shared, tanh, backward;
};

template <class X, class A, bool SHARED, bool TANH, bool EIGHT>
void launch(const Task& task, bool backward, cudaStream_t stream) {
  const dim3 blocks((task.units + WARPS - 1) / WARPS);
  if (backward) {
    backward_kernel<X, A, SHARED, TANH, EIGHT><<<blocks, WARP * WARPS, 0, stream>>>(task);
  } else {
    forward_kernel<X, A, SHARED, TANH, EIGHT><<<blocks, WARP * WARPS, 0, stream>>>(task);
  }
  check(cudaGetLastError());
}

template <class X, class A, bool SHARED, bool TANH>
void launch(const Task& task, const Kind& kind, cudaStream_t stream) {
  task.steps == CHUNK ? launch<X, A, SHARED, TANH, true>(task, kind.backward, stream)
                      : launch<X, A, SHARED, TANH, false>(task, kind.backward, stream);
}

template <class X, class A>
void launch(const Task& task, const Kind& kind, cudaStream_t stream) {
  if (kind.shared) {
    kind.tanh ? launch<X, A, true, true>(task, kind, stream) : launch<X, A, true, false>(task, kind, stream);
  } else {
    kind.tanh ? launch<X, A, false, true>(task, kind, stream)
              : launch<X, A, false, false>(task, kind, stream);
  }
}

void execute(Task task, const Curve& curve, bool backward, cudaStream_t s) {
  const Sizes& sizes = curve.sizes;
  task.height = int(sizes[2]);
  task.width = int(sizes[3]);
  task.steps = curve.steps;
  const int64_t across = tiles(sizes[3], backward ? COLUMNS : WARP), down = tiles(sizes[2], ROWS);
  const int64_t units = sizes[0] * down * across * (backward ? 3 : 1);
  if (units > 0x7fffffff) throw std::runtime_error("CUDA: more pixels than a launch can take");
  task.units = unsigned(units);
  task.across = Divisor(across);
  task.down = Divisor(down);
  const Kind kind{curve.shared, curve.tanh, backward};
  const Dtype x = task.x.dtype, alpha = task.alpha.dtype;
  if (x == Dtype::f64) return launch<double, double>(task, kind, s);
  if (x == Dtype::bf16) return launch<__nv_bfloat16, __nv_bfloat16>(task, kind, s);
  if (x == Dtype::f16) return launch<__half, __half>(task, kind, s);
  if (alpha == Dtype::bf16) return launch<float, __nv_bfloat16>(task, kind, s);
  if (alpha == Dtype::f16) return launch<float, __half>(task, kind, s);
  launch<float, float>(task, kind, s);
}

int64_t units_of(const Sizes& sizes) { return tiles(sizes[2], ROWS) * tiles(sizes[3], WARP); }

int pieces_of(const Sizes& sizes) {
  const int64_t cells = sizes[2] / CELL * (sizes[3] / CELL);
  return int(std::min<int64_t>(tiles(cells, THREADS * EACH), MOST_PIECES));
}

}  // namespace

int64_t zero_reference_doubles_cuda(const Sizes& sizes) {
  return sizes[0] * (units_of(sizes) * PARTS + pieces_of(sizes) * SUMS);
}

void zero_reference_losses_cuda(const View& x, const View& alpha, const ZeroReference& found,
                                double* workspace, const Curve& curve, double level, int device,
                                void* stream) {
  const OnDevice guard(device);
  const auto s = static_cast<cudaStream_t>(stream);
  const Sizes& sizes = curve.sizes;
  Task task{};
  task.x = x;
  task.alpha = alpha;
  task.cells = found.cells;
  task.patches = found.patches;
  task.parts = workspace;
  execute(task, curve, false, s);
  MeansTask means{};
  means.batch = sizes[0];
  means.units = units_of(sizes);
  means.pieces = pieces_of(sizes);
  means.cells_down = int(sizes[2] / CELL);
  means.cells_across = int(sizes[3] / CELL);
  means.patches = int(sizes[2] / PATCH * (sizes[3] / PATCH));
  means.level = level;
  means.pixels = double(sizes[2]) * double(sizes[3]);
  means.vertical = double(sizes[2] - 1) * double(sizes[3]);
  means.horizontal = double(sizes[2]) * double(sizes[3] - 1);
  means.cells = found.cells;
  means.means_of_patches = found.patches;
  means.parts = workspace;
  means.sums = workspace + means.batch * means.units * PARTS;
  means.means = found.means;
  means.losses = found.losses;
  zero_reference_means(means, x.dtype == Dtype::f64, s);
}

void zero_reference_slopes_cuda(const View& x, const View& alpha, const ZeroReference& found,
                                const View& grad, const View& grad_x, const View& grad_alpha,
                                const Curve& curve, double level, int device, void* stream) {
  const OnDevice guard(device);
  const Sizes& sizes = curve.sizes;
  Task task{};
  task.x = x;
  task.alpha = alpha;
  task.grad_x = grad_x;
  task.grad_alpha = grad_alpha;
  task.cells = found.cells;
  task.patches = found.patches;
  task.means = found.means;
  task.grad = grad.data;
  task.grad_stride = grad.strides[0];
  const VariationFactors factors = variation_factors(sizes.data(), 1);
  task.vertical = factors.vertical;
  task.horizontal = factors.horizontal;
  const double batch = double(sizes[0]), cell = 3.0 * SIDE * SIDE, patch = 3.0 * ROWS * ROWS;
  task.spatial = 2 / (batch * double(sizes[2] / CELL) * double(sizes[3] / CELL) * cell);
  task.exposure = 2 / (batch * double(sizes[2] / PATCH) * double(sizes[3] / PATCH) * patch);
  task.colour = 2 / (batch * double(sizes[2]) * double(sizes[3]));
  task.level = level;
  execute(task, curve, true, static_cast<cudaStream_t>(stream));
}

}  // namespace fastllie
