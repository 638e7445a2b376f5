#include "gridcurve_cells.cuh"

namespace fastllie {
namespace {

// Threads of a block, each of which goes down a column of pixels. The backward has room for the sums of fewer
constexpr int COLUMNS = 128, SUMMED = 64;
// Dawn's steps, which have no loop where a block has room for all lumas: DAWN
constexpr int DAWN_STEPS = 8;
// Rows of a band at most, in float32 sums of which the gradient of the grid loses nothing
constexpr int64_t BAND = 72;

template <class X, bool DAWN>
__global__ void __launch_bounds__(COLUMNS, 8) gridcurve_forward_kernel(const __grid_constant__ Task task) {
  using T = typename Wide<X>::type;
  __shared__ Mixed<T> mixed;
  const Part part(task, COLUMNS);
  if (part.empty()) return;
  mixed.template open<COLUMNS>(task, part);
  const int column = part.column + threadIdx.x;
  const bool there = column < part.end;
  const T across = task.across.template share<T>(task.across.from_middle(column, part.column_gap));
  const Column<const X, 1> guides(task.guide, part.b, part.first, column);
  const Column<const X, 3> image(task.x, part.b, part.first, column);
  const Column<X, 3> out(task.out, part.b, part.first, column);
  X guide, x[3];
  // the next row's pixels are on their way while one is computed
  const auto ask = [&](int row) {
    guide = guides.at(0, row);
#pragma unroll
    for (int c = 0; c < 3; ++c) x[c] = image.at(c, row);
  };
  if (there) ask(0);
  for (int first = 0; first < part.rows; first += ROWS) {
    const int count = min(ROWS, part.rows - first);
    __syncthreads();
    mixed.template mix<COLUMNS>(task, part, first, count);
    __syncthreads();
    if (!there) continue;
    for (int r = 0; r < count; ++r) {
      const int row = first + r;
      const Height<T> height(task, cut(widen(guide)));
      const int node = height.luma - (DAWN ? 0 : part.luma);
      const bool ours = DAWN || static_cast<unsigned>(node) < GAPS;
      const Looked<T> looked(mixed.rows[r].nodes, ours ? node : 0, height.share, across);
      T y[3];
#pragma unroll
      for (int c = 0; c < 3; ++c) {
        const T black = looked.values[3 + c];
        y[c] = cut((widen(x[c]) - black) * reciprocal(T(1) - black));
      }
      ask(min(row + 1, part.rows - 1));
      repeat<DAWN ? DAWN_STEPS : 0>(task.steps, [&] {
#pragma unroll
        for (int c = 0; c < 3; ++c) y[c] = curve_step(y[c], looked.values[c]);
      });
#pragma unroll
      for (int c = 0; c < 3; ++c)
        if (ours) narrow(y[c], out.at(c, row));
    }
  }
}

// The curve, and what it grows by with alpha and with where it begins: from the first step on, so that no
// state is kept.
template <class T>
struct Traced {
  T y, by_alpha, by_start;

  // Behind the first step
  __device__ __forceinline__ void begin(T start, T alpha) {
    by_alpha = start - start * start;
    by_start = (T(1) + alpha) - (alpha + alpha) * start;
    y = start + alpha * by_alpha;
  }
  __device__ __forceinline__ void step(T alpha) {
    const T rest = y - y * y, slope = (T(1) + alpha) - (alpha + alpha) * y;
    y = y + alpha * rest;
    by_alpha = rest + slope * by_alpha;
    by_start = slope * by_start;
  }
};

// Sums over pixels of a node's planes, and those times the shares of the cells below, by fours.
template <class T>
struct Sums {
  alignas(16) T values[QUADS][NODES][SUMMED][4];  // of each column
  T across[SUMMED];                               // shares of the cells on the right

  __device__ __forceinline__ void open(T share) {
    const T none[4] = {};
#pragma unroll
    for (int i = 0; i < QUADS * NODES; ++i) put(values[i / NODES][i % NODES][threadIdx.x], none);
    across[threadIdx.x] = share;
  }
  __device__ __forceinline__ void add(int node, T weight, T down, const T (&grads)[GRID_PLANES]) {
    const T below = weight * down;
#pragma unroll
    for (int q = 0; q < QUADS; ++q) {
      T* const at = values[q][node][threadIdx.x];
      T quad[4];
      read<4>(at, quad);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int v = 4 * q + i;
        quad[i] += (v < GRID_PLANES ? weight : below) * grads[v % GRID_PLANES];
      }
      put(at, quad);
    }
  }
};

// Of each eight columns: all, and their shares of the cells on the right.
template <class T>
struct Totals {
  static constexpr int GROUPS = SUMMED / 8;
  alignas(16) T values[GROUPS][2][QUADS][NODES][4];

  // A thread has a node of eight columns
  __device__ __forceinline__ void collect(const Sums<T>& sums) {
    const int node = threadIdx.x % NODES, group = threadIdx.x / NODES;
    T all[QUADS][4] = {}, right[QUADS][4] = {};
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      // each lane begins at another column, in another bank
      const int column = group * 8 + (i ^ node);
      const T share = sums.across[column];
#pragma unroll
      for (int q = 0; q < QUADS; ++q) {
        T found[4];
        read<4>(sums.values[q][node][column], found);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          all[q][j] += found[j];
          right[q][j] += share * found[j];
        }
      }
    }
#pragma unroll
    for (int q = 0; q < QUADS; ++q) {
      put(values[group][0][q][node], all[q]);
      put(values[group][1][q][node], right[q]);
    }
  }
  // Of a node and plane what the cells before and behind get: above, then below
  __device__ __forceinline__ void split(int node, int plane, double (&to)[4]) const {
    double sums[2][2] = {};
    for (int group = 0; group < GROUPS; ++group) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int value = i / 2 * GRID_PLANES + plane;
        sums[i / 2][i % 2] += values[group][i % 2][value / 4][node][value % 4];
      }
    }
    const auto& [above, below] = sums;
    to[0] = (above[0] - above[1]) - (below[0] - below[1]);
    to[1] = above[1] - below[1];
    to[2] = below[0] - below[1];
    to[3] = below[1];
  }
};

template <class T>
struct Kept {
  Sums<T> sums;
  union {
    Mixed<T> mixed;
    Totals<T> totals;  // when the rows have been mixed for the last time
  };
};
static_assert(SUMMED % 32 == 0 && NODES == 8, "a quarter of a warp has the nodes of eight columns");

template <class T>
__device__ __forceinline__ void write_parts(Kept<T>& kept, const Part& part, int lumas, double* to) {
  __syncthreads();
  kept.totals.collect(kept.sums);
  __syncthreads();
  const int count = lumas * GRID_PLANES;
  for (int i = threadIdx.x; i < count; i += SUMMED) {
    const int node = i / GRID_PLANES - part.luma;
    double cells[4] = {};
    if (static_cast<unsigned>(node) < NODES) kept.totals.split(node, i % GRID_PLANES, cells);
#pragma unroll
    for (int cell = 0; cell < 4; ++cell) to[cell * count + i] = cells[cell];
  }
}

template <class X, bool DAWN>
__global__ void __launch_bounds__(SUMMED, 7) gridcurve_backward_kernel(const __grid_constant__ Task task) {
  using T = typename Wide<X>::type;
  extern __shared__ __align__(16) unsigned char memory[];
  Kept<T>& kept = *reinterpret_cast<Kept<T>*>(memory);
  const Part part(task, SUMMED);
  const int cells = 4 * task.lumas * GRID_PLANES;
  double* const parts = task.parts ? task.parts + int64_t{blockIdx.x} * cells : nullptr;
  if (part.empty()) {
    for (int i = threadIdx.x; parts && i < cells; i += SUMMED) parts[i] = 0;
    return;
  }
  kept.mixed.template open<SUMMED>(task, part);
  const int column = part.column + threadIdx.x;
  const bool there = column < part.end;
  const T across = task.across.template share<T>(task.across.from_middle(column, part.column_gap));
  kept.sums.open(across);
  const Column<const X, 1> guides(task.guide, part.b, part.first, column);
  const Column<const X, 3> image(task.x, part.b, part.first, column),
      given(task.grad, part.b, part.first, column);
  const Column<X, 1> grad_guides(task.grad_guide, part.b, part.first, column);
  const Column<X, 3> out(task.out, part.b, part.first, column);
  X guide, x[3], grad[3];
  // the next row's pixels are on their way while one is computed
  const auto ask = [&](int row) {
    guide = guides.at(0, row);
#pragma unroll
    for (int c = 0; c < 3; ++c) x[c] = image.at(c, row);
  };
  const auto ask_grad = [&](int row) {
#pragma unroll
    for (int c = 0; c < 3; ++c) grad[c] = given.at(c, row);
  };
  if (there) {
    ask(0);
    ask_grad(0);
  }
  for (int first = 0; first < part.rows; first += ROWS) {
    const int count = min(ROWS, part.rows - first);
    __syncthreads();
    kept.mixed.template mix<SUMMED>(task, part, first, count);
    __syncthreads();
    if (!there) continue;
    for (int r = 0; r < count; ++r) {
      const int row = first + r;
      const int next = min(row + 1, part.rows - 1);
      const T inside = cut(widen(guide));
      const bool guide_idle = inside == widen(guide);
      const Height<T> height(task, inside);
      int node = height.luma - (DAWN ? 0 : part.luma);
      const bool ours = DAWN || static_cast<unsigned>(node) < GAPS;
      node = ours ? node : 0;
      const Looked<T> looked(kept.mixed.rows[r].nodes, node, height.share, across);
      T scale[3], quotient[3];
      Traced<T> traced[3];
      bool idle[3];
#pragma unroll
      for (int c = 0; c < 3; ++c) {
        const T black = looked.values[3 + c];
        scale[c] = reciprocal(T(1) - black);
        quotient[c] = (widen(x[c]) - black) * scale[c];
        const T start = cut(quotient[c]);
        idle[c] = start == quotient[c];
        traced[c].begin(start, looked.values[c]);
      }
      ask(next);
      repeat<DAWN ? DAWN_STEPS - 1 : 0>(task.steps - 1, [&] {
#pragma unroll
        for (int c = 0; c < 3; ++c) traced[c].step(looked.values[c]);
      });
      T grad_x[3], grads[GRID_PLANES];
#pragma unroll
      for (int c = 0; c < 3; ++c) {
        grad_x[c] = idle[c] ? widen(grad[c]) * traced[c].by_start * scale[c] : T(0);
        grads[c] = widen(grad[c]) * traced[c].by_alpha;
        grads[3 + c] = grad_x[c] * quotient[c] - grad_x[c];
      }
      ask_grad(next);
      if (!ours) continue;
      if (task.wants_x) {
#pragma unroll
        for (int c = 0; c < 3; ++c) narrow(grad_x[c], out.at(c, row));
      }
      if (task.wants_guide) {
        T grad_guide = grads[0] * looked.slopes[0];
#pragma unroll
        for (int p = 1; p < GRID_PLANES; ++p) grad_guide += grads[p] * looked.slopes[p];
        narrow(guide_idle ? grad_guide * T(task.top) : T(0), grad_guides.at(0, row));
      }
      if (!task.wants_grid) continue;
      const T down = kept.mixed.rows[r].share;
      kept.sums.add(node, T(1) - height.share, down, grads);
      kept.sums.add(node + 1, height.share, down, grads);
    }
  }
  if (parts) write_parts(kept, part, task.lumas, parts);
}

Axis axis_of(int64_t cells, int64_t whole, int64_t place, int64_t size, int64_t most) {
  if (2 * cells * (whole + 1) > 0x7fffffff)
    throw std::runtime_error("CUDA: a picture too large for a grid of so many cells");
  Axis axis{};
  axis.cells = static_cast<int>(cells);
  axis.whole = static_cast<int>(whole);
  axis.place = static_cast<int>(place);
  axis.size = static_cast<int>(size);
  axis.spacing = Divisor(2 * cells);
  axis.unit = cells > 1 ? 0.5 / double(whole) : 0;
  const int64_t longest = grid_longest(place, size, whole, cells);
  axis.parts = static_cast<int>(tiles(longest, static_cast<int>(most)));
  axis.most = static_cast<int>(tiles(longest, axis.parts));
  return axis;
}

// Blocks that go over the same pixels, each for other lumas.
int64_t slabs_of(const GridCurve& curve) { return tiles(max(curve.cells[0] - 1, int64_t{1}), GAPS); }

template <class X, bool DAWN>
void launch(const Task& task, dim3 blocks, bool backward, cudaStream_t stream) {
  if (backward) {
    constexpr int bytes = sizeof(Kept<typename Wide<X>::type>);
    const auto kernel = gridcurve_backward_kernel<X, DAWN>;
    // more than the 48 KiB that are granted unasked
    if (bytes > 48 << 10)
      check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    kernel<<<blocks, SUMMED, bytes, stream>>>(task);
  } else {
    gridcurve_forward_kernel<X, DAWN><<<blocks, COLUMNS, 0, stream>>>(task);
  }
  check(cudaGetLastError());
}

template <class X>
void execute(const Task& task, dim3 blocks, bool backward, cudaStream_t stream) {
  for (const View* v : {&task.grad, &task.x, &task.guide, &task.out, &task.grad_guide})
    if (v->strides[2] * int64_t{sizeof(X)} > 0x7fffffff)
      throw std::runtime_error("CUDA: rows of an image 2 GiB apart");
  const bool dawn = task.steps == DAWN_STEPS && task.slabs.by == 1;
  dawn ? launch<X, true>(task, blocks, backward, stream) : launch<X, false>(task, blocks, backward, stream);
}

void dispatch(Task task, const GridCurve& curve, bool backward, int device, void* stream) {
  const OnDevice guard(device);
  task.down = axis_of(curve.cells[1], curve.whole[0], curve.place[0], curve.sizes[2], BAND);
  task.across =
      axis_of(curve.cells[2], curve.whole[1], curve.place[1], curve.sizes[3], backward ? SUMMED : COLUMNS);
  task.lumas = static_cast<int>(curve.cells[0]);
  task.steps = static_cast<int>(curve.steps);
  task.top = static_cast<float>(task.lumas - 1);
  task.last = static_cast<float>(max(task.lumas - 2, 0));
  task.wants_x = task.out.data != nullptr;
  task.wants_grid = task.parts != nullptr;
  task.wants_guide = task.grad_guide.data != nullptr;
  const int64_t counts[] = {slabs_of(curve), task.across.parts, grid_gaps(curve.cells[2]), task.down.parts,
                            grid_gaps(curve.cells[1])};
  Divisor* const divisors[] = {&task.slabs, &task.tiles, &task.column_gaps, &task.bands, &task.row_gaps};
  int64_t blocks = curve.sizes[0];
  for (int i = 0; i < 5; ++i) {
    *divisors[i] = Divisor(counts[i]);
    blocks *= counts[i];
  }
  if (blocks > 0x7fffffff) throw std::runtime_error("CUDA: more parts of images than a launch can take");
  const dim3 grid(static_cast<unsigned>(blocks));
  const auto s = static_cast<cudaStream_t>(stream);
  switch (task.x.dtype) {
    case Dtype::f64:
      return execute<double>(task, grid, backward, s);
    case Dtype::bf16:
      return execute<__nv_bfloat16>(task, grid, backward, s);
    case Dtype::f16:
      return execute<__half>(task, grid, backward, s);
    default:
      return execute<float>(task, grid, backward, s);
  }
}

}  // namespace

std::array<int64_t, 2> gridcurve_parts_cuda(const GridCurve& curve) {
  return {
      grid_parts(curve.place[0], curve.sizes[2], curve.whole[0], curve.cells[1], BAND),
      grid_parts(curve.place[1], curve.sizes[3], curve.whole[1], curve.cells[2], SUMMED) * slabs_of(curve)};
}

void gridcurve_forward_cuda(const View& x, const void* grid, const View& guide, const View& out,
                            const GridCurve& curve, int device, void* stream) {
  Task task{};
  task.x = x;
  task.grid = grid;
  task.guide = guide;
  task.out = out;
  dispatch(task, curve, false, device, stream);
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
  dispatch(task, curve, true, device, stream);
}

}  // namespace fastllie
