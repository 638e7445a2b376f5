// Where the pixels of a warp of the zero-reference losses are, and how it reads their maps.
#pragma once
#include "zero_reference_means.cuh"

namespace fastllie {
namespace {

// A warp takes the rows of a patch: the forward in each of its lanes a column; in the backward its first and
// last lane hold the pixels beside those that it works on.
constexpr int WARPS = 4, ROWS = int(PATCH), SIDE = int(CELL), COLUMNS = WARP - 2;

struct Task {
  int height, width;
  int64_t steps;
  unsigned units;                     // of work: one a warp
  Divisor across{1}, down{1};         // units of an image
  View x, alpha, grad_x, grad_alpha;  // a null gradient is not wanted
  void *cells, *patches;
  double* parts;
  const double* means;
  const void* grad;  // of the four losses
  int64_t grad_stride;
  // Of each loss what its gradient is multiplied by, besides what hangs on the element
  double vertical, horizontal, spatial, colour, exposure, level;
};

// Where a warp's pixels are
struct Corner {
  unsigned b;
  int top, left, rows;
  __device__ __forceinline__ Corner(const Task& task, unsigned unit, int columns) {
    const unsigned line = task.across.divide(unit);
    b = task.down.divide(line);
    left = int(unit - line * task.across.by) * columns;
    top = int(line - b * task.down.by) * ROWS;
    rows = min(ROWS, task.height - top);
  }
};

template <class A, bool TANH, class T>
__device__ __forceinline__ void read_map(const A* from, T& to) {
  to = widen(*from);
  if constexpr (TANH) to = tanh_of(to);
}

// The maps of a chunk of steps, or the shared one. Where steps are EIGHT all maps are there.
template <bool EIGHT, bool TANH, class A, class T, int MAPS>
__device__ __forceinline__ void read_maps(const Task& task, const A* from, int64_t first, T (&to)[MAPS]) {
  from += first * 3 * task.alpha.strides[1];
#pragma unroll
  for (int k = 0; k < MAPS; ++k) {
    if (MAPS == 1 || EIGHT || first + k < task.steps) read_map<A, TANH>(from, to[k]);
    from += 3 * task.alpha.strides[1];
  }
}

// Adds squared differences of neighbours; the nearest pixel stands for what lies beyond the warp.
template <class T>
__device__ __forceinline__ void vary(T a, T up, T& vertical, T& horizontal) {
  const T down = a - up, across = a - __shfl_up_sync(ALL, a, 1);
  vertical += down * down;
  horizontal += across * across;
}

}  // namespace
}  // namespace fastllie
