#include "gridcurve.h"

#include "access.cuh"

namespace fastllie {
namespace {

// Threads of a block: a column of pixels each, whose sums it keeps for itself, so that their order never
// changes
constexpr int COLUMNS = 64;
// Lumas whose sums a block has room for; of a grid with more, several blocks go over the same pixels
template <class T>
constexpr int LUMAS = sizeof(T) == 8 ? 4 : 8;

struct Task {
  View grad, x, guide, out, grad_guide;
  const void* grid;
  double* parts;
  int64_t height, width, lumas, rows, columns, top, left, whole_h, whole_w, steps;
  int64_t bands, tiles, slabs;
};

// The pixels of a thread, all between the middles of the same four cells: so many rows of one column.
template <class T>
struct Pixels {
  int64_t b, row_gap, column_gap, first, last, column, slab, part;
  T across;      // share of the columns of cells behind
  bool there;    // in the gap
  const T* grid[4];  // the cells around: upper and lower, left before right

  __device__ Pixels(const Task& task, int64_t block) {
    slab = block % task.slabs;
    block /= task.slabs;
    part = block;
    const int64_t tile = block % task.tiles;
    block /= task.tiles;
    column_gap = block % grid_gaps(task.columns);
    block /= grid_gaps(task.columns);
    const int64_t band = block % task.bands;
    block /= task.bands;
    row_gap = block % grid_gaps(task.rows);
    b = block / grid_gaps(task.rows);
    const int64_t top = grid_gap_begin(row_gap, task.top, task.height, task.whole_h, task.rows);
    const int64_t count = grid_gap_begin(row_gap + 1, task.top, task.height, task.whole_h, task.rows) - top;
    first = top + count * band / task.bands;
    last = top + count * (band + 1) / task.bands;
    column = grid_gap_begin(column_gap, task.left, task.width, task.whole_w, task.columns) +
             tile * COLUMNS + threadIdx.x;
    there = column < grid_gap_begin(column_gap + 1, task.left, task.width, task.whole_w, task.columns);
    across = grid_share<T>(task.left + column, column_gap, task.whole_w, task.columns);
    for (int corner = 0; corner < 4; ++corner) {
      // a single row or column of cells is its own neighbour
      const int64_t row = row_gap + (task.rows > 1 ? corner / 2 : 0);
      const int64_t cell = (b * task.rows + row) * task.columns + column_gap + (task.columns > 1 ? corner % 2 : 0);
      grid[corner] = static_cast<const T*>(task.grid) + cell * task.lumas * GRID_PLANES;
    }
  }
};

// What a pixel sees of the grid: values of the planes, and what they grow by from luma to luma.
template <class T>
struct Looked {
  T values[GRID_PLANES], slopes[GRID_PLANES];
  T share;       // of the luma behind
  int64_t luma;  // the one before

  __device__ Looked(const Task& task, const Pixels<T>& pixels, T guide, T down) {
    const T height = clamp_between(guide, T(0), T(1)) * T(task.lumas - 1);
    const int64_t most = task.lumas > 1 ? task.lumas - 2 : 0;
    // a NaN lies between the first two
    luma = height >= T(0) ? static_cast<int64_t>(height) : 0;
    luma = luma < most ? luma : most;
    share = height - T(luma);
    const int64_t before = luma * GRID_PLANES, behind = task.lumas > 1 ? before + GRID_PLANES : before;
#pragma unroll
    for (int p = 0; p < GRID_PLANES; ++p) {
      T lumas[2];
#pragma unroll
      for (int side = 0; side < 2; ++side) {
        const int64_t at = (side ? behind : before) + p;
        const T *const *cells = pixels.grid;
        const T upper = cells[0][at] + pixels.across * (cells[1][at] - cells[0][at]);
        const T lower = cells[2][at] + pixels.across * (cells[3][at] - cells[2][at]);
        lumas[side] = upper + down * (lower - upper);
      }
      slopes[p] = lumas[1] - lumas[0];
      values[p] = lumas[0] + share * slopes[p];
    }
  }
};

template <class X>
__global__ void gridcurve_forward_kernel(const Task task) {
  using T = typename Wide<X>::type;
  const Pixels<T> pixels(task, blockIdx.x);
  if (!pixels.there) return;
  const int64_t b = pixels.b, column = pixels.column;
  for (int64_t row = pixels.first; row < pixels.last; ++row) {
    const T down = grid_share<T>(task.top + row, pixels.row_gap, task.whole_h, task.rows);
    const Looked<T> looked(task, pixels, widen(*at<X>(task.guide, b, 0, row, column)), down);
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      const T x = widen(*at<X>(task.x, b, c, row, column));
      narrow(grid_curve(x, looked.values[c], looked.values[3 + c], task.steps, T(1)),
             *const_cast<X*>(at<X>(task.out, b, c, row, column)));
    }
  }
}

// Each thread adds up what its column gives the grid: of each luma and plane the sum over its rows, and that
// of the rows' shares of the cells behind.
template <class X>
__global__ void gridcurve_backward_kernel(const Task task) {
  using T = typename Wide<X>::type;
  constexpr int HERE = LUMAS<T>, SUMS = HERE * GRID_PLANES * 2;
  __shared__ T sums[SUMS][COLUMNS];
  __shared__ T shares[COLUMNS];
  const Pixels<T> pixels(task, blockIdx.x);
  const int64_t b = pixels.b, column = pixels.column, first_luma = pixels.slab * HERE;
  const int thread = threadIdx.x;
  for (int i = 0; i < SUMS; ++i) sums[i][thread] = T(0);
  shares[thread] = pixels.across;
  const bool writes = pixels.slab == 0;
  for (int64_t row = pixels.first; pixels.there && row < pixels.last; ++row) {
    const T down = grid_share<T>(task.top + row, pixels.row_gap, task.whole_h, task.rows);
    const T guide = widen(*at<X>(task.guide, b, 0, row, column));
    const Looked<T> looked(task, pixels, guide, down);
    T grads[GRID_PLANES], grad_guide = 0;
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      T grad_x;
      grid_curve_backward(widen(*at<X>(task.x, b, c, row, column)), looked.values[c], looked.values[3 + c],
                          task.steps, T(1), widen(*at<X>(task.grad, b, c, row, column)), grad_x, grads[c],
                          grads[3 + c]);
      if (writes && task.out.data) narrow(grad_x, *const_cast<X*>(at<X>(task.out, b, c, row, column)));
    }
#pragma unroll
    for (int p = 0; p < GRID_PLANES; ++p) grad_guide += grads[p] * looked.slopes[p];
    if (writes && task.grad_guide.data) {
      const bool idle = guide >= T(0) && guide <= T(1);
      narrow(idle ? grad_guide * T(task.lumas - 1) : T(0),
             *const_cast<X*>(at<X>(task.grad_guide, b, 0, row, column)));
    }
    if (!task.parts) continue;
#pragma unroll
    for (int side = 0; side < 2; ++side) {
      const int64_t luma = looked.luma + side - first_luma;
      if (luma < 0 || luma >= HERE) continue;
      const T weight = side ? looked.share : T(1) - looked.share;
#pragma unroll
      for (int p = 0; p < GRID_PLANES; ++p) {
        const T sum = weight * grads[p];
        const int64_t to = (luma * GRID_PLANES + p) * 2;
        sums[to][thread] += sum;
        sums[to + 1][thread] += down * sum;
      }
    }
  }
  if (!task.parts) return;
  __syncthreads();
  // then the columns of the block, one after the other
  const int64_t of_column = task.lumas * GRID_PLANES;
  for (int i = thread; i < HERE * GRID_PLANES; i += COLUMNS) {
    const int64_t to = first_luma * GRID_PLANES + i;
    if (to >= of_column) break;
    double all = 0, right = 0, lower = 0, lower_right = 0;
    for (int k = 0; k < COLUMNS; ++k) {
      // each thread begins at another column, in another bank
      const int t = (k + i) % COLUMNS;
      const double share = shares[t], sum = sums[2 * i][t], below = sums[2 * i + 1][t];
      all += sum;
      right += share * sum;
      lower += below;
      lower_right += share * below;
    }
    double* const parts = task.parts + pixels.part * 4 * of_column + to;
    parts[0] = all - right - lower + lower_right;
    parts[of_column] = right - lower_right;
    parts[2 * of_column] = lower - lower_right;
    parts[3 * of_column] = lower_right;
  }
}

template <class X>
void launch(Task task, int64_t batch, bool backward, cudaStream_t stream) {
  task.slabs = backward && task.parts ? tiles(task.lumas, LUMAS<typename Wide<X>::type>) : 1;
  const int64_t blocks =
      batch * grid_gaps(task.rows) * task.bands * grid_gaps(task.columns) * task.tiles * task.slabs;
  const dim3 grid(static_cast<unsigned>(blocks));
  if (backward) {
    gridcurve_backward_kernel<X><<<grid, COLUMNS, 0, stream>>>(task);
  } else {
    gridcurve_forward_kernel<X><<<grid, COLUMNS, 0, stream>>>(task);
  }
  check(cudaGetLastError());
}

void execute(Task task, const GridCurve& curve, bool backward, int device, void* stream) {
  const OnDevice guard(device);
  task.height = curve.sizes[2];
  task.width = curve.sizes[3];
  task.lumas = curve.cells[0];
  task.rows = curve.cells[1];
  task.columns = curve.cells[2];
  task.top = curve.place[0];
  task.left = curve.place[1];
  task.whole_h = curve.whole[0];
  task.whole_w = curve.whole[1];
  task.steps = curve.steps;
  const auto parts = gridcurve_parts_cuda(curve);
  task.bands = parts[0];
  task.tiles = parts[1];
  const auto s = static_cast<cudaStream_t>(stream);
  const int64_t batch = curve.sizes[0];
  switch (task.x.dtype) {
    case Dtype::f64:
      return launch<double>(task, batch, backward, s);
    case Dtype::bf16:
      return launch<__nv_bfloat16>(task, batch, backward, s);
    case Dtype::f16:
      return launch<__half>(task, batch, backward, s);
    default:
      return launch<float>(task, batch, backward, s);
  }
}

}  // namespace

std::array<int64_t, 2> gridcurve_parts_cuda(const GridCurve& curve) {
  return {grid_parts(curve.place[0], curve.sizes[2], curve.whole[0], curve.cells[1], GRID_BAND),
          grid_parts(curve.place[1], curve.sizes[3], curve.whole[1], curve.cells[2], COLUMNS)};
}

void gridcurve_forward_cuda(const View& x, const void* grid, const View& guide, const View& out,
                            const GridCurve& curve, int device, void* stream) {
  Task task{};
  task.x = x;
  task.grid = grid;
  task.guide = guide;
  task.out = out;
  execute(task, curve, false, device, stream);
}

void gridcurve_backward_cuda(const View& grad, const View& x, const void* grid, const View& guide,
                             const View& grad_x, const View& grad_guide, double* parts,
                             const GridCurve& curve, int device, void* stream) {
  Task task{};
  task.grad = grad;
  task.x = x;
  task.grid = grid;
  task.guide = guide;
  task.out = grad_x;
  task.grad_guide = grad_guide;
  task.parts = parts;
  execute(task, curve, true, device, stream);
}

}  // namespace fastllie
