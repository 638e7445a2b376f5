// What the two kernels of the curve in a bilateral grid share: the pixels of a block, and the cells around.
#pragma once
#include "gridcurve.h"

#if !defined(__NVCC__)  // the kernels in C++, without a GPU: tests/cuda_on_cpu
#include <emulated_ptx.h>
#endif
#include "access.cuh"

namespace fastllie {
namespace {

// Rows of pixels whose cells are mixed at a time; lumas whose nodes a block has room for, and those between
// two of which it works: of a grid with more, several blocks go over the same pixels
constexpr int ROWS = 16, NODES = 8, GAPS = NODES - 1;
// Of a node: six planes, and what they grow by to the next column of cells, by fours
constexpr int QUADS = 2 * GRID_PLANES / 4;

__device__ __forceinline__ double reciprocal(double v) { return 1 / v; }
__device__ __forceinline__ double at_least(double v, double low) { return v < low ? low : v; }
__device__ __forceinline__ double at_most(double v, double high) { return v > high ? high : v; }
template <class T>
__device__ __forceinline__ T cut(T v) {
  return at_most(at_least(v, T(0)), T(1));
}
// Of what is a number
__device__ __forceinline__ float cut_number(float v) { return __saturatef(v); }
__device__ __forceinline__ double cut_number(double v) { return cut(v); }
// 0 of a NaN
__device__ __forceinline__ int whole_part(float v) { return __float2int_rz(v); }
__device__ __forceinline__ int whole_part(double v) { return v >= 0 ? static_cast<int>(v) : 0; }

// Rows or columns of the grid and of the image. Whole numbers stay below 2^31, as launch() makes sure.
struct Axis {
  int cells, whole, place, size;
  int parts, most;  // of a gap, and pixels of one
  Divisor spacing;  // of the middles of cells, in halves of a pixel over a cell
  double unit;      // what a share grows by with those; 0 where a single cell is its own neighbour

  __device__ __forceinline__ int begin(int gap) const {
    if (gap <= 0) return 0;
    if (gap >= grid_gaps(cells)) return size;
    const int first = static_cast<int>(spacing.divide((2 * gap + 1) * whole + cells - 1)) - place;
    return min(max(first, 0), size);
  }
  // How far a pixel is from the middle of the cell before its gap, and its share of the one behind
  __device__ __forceinline__ int from_middle(int pixel, int gap) const {
    return (2 * (place + pixel) + 1) * cells - (2 * gap + 1) * whole;
  }
  template <class T>
  __device__ __forceinline__ T share(int from_middle) const {
    return cut_number(T(from_middle) * T(unit));
  }
};

struct Task {
  View grad, x, guide, out, grad_guide;
  const void* grid;
  double* parts;
  Axis down, across;
  int lumas, steps;
  float top, last;  // the last luma, and the one before
  int wants_x, wants_grid, wants_guide;
  Divisor slabs, tiles, column_gaps, bands, row_gaps;
};

// The pixels of a block, all between the middles of the same four cells: a band of rows of so many columns;
// and the lumas that it looks at.
struct Part {
  int64_t b;
  int row_gap, column_gap, first, rows, column, end, luma;

  __device__ Part(const Task& task, int columns) {
    unsigned left = blockIdx.x;
    const auto next = [&](const Divisor& count) {
      const unsigned above = count.divide(left), at = left - above * count.by;
      left = above;
      return static_cast<int>(at);
    };
    luma = next(task.slabs) * GAPS;
    const int tile = next(task.tiles);
    column_gap = next(task.column_gaps);
    const int band = next(task.bands);
    row_gap = next(task.row_gaps);
    b = left;
    first = task.down.begin(row_gap) + band * task.down.most;
    rows = min(task.down.most, task.down.begin(row_gap + 1) - first);
    column = task.across.begin(column_gap) + tile * columns;
    end = task.across.begin(column_gap + 1);
  }
  __device__ __forceinline__ bool empty() const { return rows <= 0 || column >= end; }
};

template <class T>
__device__ __forceinline__ void put(T* to, const T (&from)[4]) {
  if constexpr (sizeof from == 16) {
    uint4 words;
    memcpy(&words, from, sizeof words);
    *reinterpret_cast<uint4*>(to) = words;
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) to[i] = from[i];
  }
}

// By fours in this order, so that lanes at eight lumas read from all banks
template <class T>
struct Nodes {
  alignas(16) T values[QUADS][NODES][4];
};

// The nodes of a block's lumas, mixed along the rows of its pixels.
template <class T>
struct Mixed {
  Nodes<T> upper, growth;  // on the row of cells above, and to the one below
  struct Row {
    Nodes<T> nodes;
    alignas(16) T share;  // of the cells below
  } rows[ROWS];

  template <int THREADS_OF_BLOCK>
  __device__ __forceinline__ void open(const Task& task, const Part& part) {
    const int column = task.lumas * GRID_PLANES;
    const int64_t row = int64_t{task.across.cells} * column;
    const T* const grid = static_cast<const T*>(task.grid) + (part.b * task.down.cells + part.row_gap) * row +
                          part.column_gap * column;
    // a single row or column of cells is its own neighbour
    const int64_t below = task.down.cells > 1 ? row : 0;
    const int right = task.across.cells > 1 ? column : 0;
#pragma unroll 1
    for (int i = threadIdx.x; i < QUADS * NODES * 4; i += THREADS_OF_BLOCK) {
      const int value = i / (NODES * 4) * 4 + i % 4, luma = part.luma + i / 4 % NODES;
      const bool grows = value >= GRID_PLANES;
      const T* const cell =
          grid + min(luma, task.lumas - 1) * GRID_PLANES + (grows ? value - GRID_PLANES : value);
      const T above = grows ? cell[right] - cell[0] : cell[0];
      const T beneath = grows ? cell[below + right] - cell[below] : cell[below];
      (&upper.values[0][0][0])[i] = above;
      (&growth.values[0][0][0])[i] = beneath - above;
    }
  }
  // Rows from `first` of the part on. A lane has a quad of a node, a warp a row at a time
  template <int THREADS_OF_BLOCK>
  __device__ __forceinline__ void mix(const Task& task, const Part& part, int first, int count) {
    const int lane = threadIdx.x % 32;
    if (lane >= QUADS * NODES) return;
    T from[4], further[4];
    read<4>(&upper.values[0][0][0] + 4 * lane, from);
    read<4>(&growth.values[0][0][0] + 4 * lane, further);
    constexpr int WARPS = THREADS_OF_BLOCK / 32;
    const int warp = threadIdx.x / 32;
    int place = task.down.from_middle(part.first + first + warp, part.row_gap);
    T* to = &rows[warp].nodes.values[0][0][0] + 4 * lane;
#pragma unroll 1
    for (int r = warp; r < count; r += WARPS) {
      const T share = task.down.template share<T>(place);
      T mixed[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) mixed[i] = from[i] + share * further[i];
      put(to, mixed);
      // behind the nodes
      if (lane == 0) to[4 * QUADS * NODES] = share;
      to += WARPS * sizeof(Row) / sizeof(T);
      place += 2 * WARPS * task.down.cells;
    }
  }
};

// Where a pixel's guide lies between the lumas.
template <class T>
struct Height {
  T share;   // of the luma behind
  int luma;  // the one before

  __device__ __forceinline__ Height(const Task& task, T guide) {
    const T height = guide * T(task.top);
    luma = whole_part(at_most(height, T(task.last)));
    share = height - T(luma);
  }
};

// What a pixel sees of the grid: values of the planes, and what they grow by from luma to luma.
template <class T>
struct Looked {
  T values[GRID_PLANES], slopes[GRID_PLANES];

  __device__ __forceinline__ Looked(const Nodes<T>& nodes, int node, T share, T across) {
    T found[2][QUADS * 4];  // before and behind
#pragma unroll
    for (int i = 0; i < 2 * QUADS; ++i) {
      T quad[4];
      read<4>(nodes.values[i / 2][node + i % 2], quad);
#pragma unroll
      for (int j = 0; j < 4; ++j) found[i % 2][i / 2 * 4 + j] = quad[j];
    }
#pragma unroll
    for (int p = 0; p < GRID_PLANES; ++p) {
      const T here = found[0][p] + across * found[0][GRID_PLANES + p];
      slopes[p] = found[1][p] + across * found[1][GRID_PLANES + p] - here;
      values[p] = here + share * slopes[p];
    }
  }
};

// Pixels of one column of an image, by channel and row.
template <class S, int CHANNELS>
struct Column {
  S* first[CHANNELS];
  int row;  // bytes

  __device__ __forceinline__ Column(const View& v, int64_t b, int64_t y, int64_t x)
      : row(static_cast<int>(v.strides[2] * sizeof(S))) {
#pragma unroll
    for (int c = 0; c < CHANNELS; ++c)
      first[c] =
          static_cast<S*>(v.data) + b * v.strides[0] + c * v.strides[1] + y * v.strides[2] + x * v.strides[3];
  }
  __device__ __forceinline__ S& at(int c, int r) const {
    using Byte = std::conditional_t<std::is_const_v<S>, const char, char>;
    return *reinterpret_cast<S*>(reinterpret_cast<Byte*>(first[c]) + wide_product(r, row));
  }
};

// A step so many times: eight of them, dawn's, without a loop.
template <int STEPS, class Step>
__device__ __forceinline__ void repeat(int steps, const Step& step) {
  if constexpr (STEPS > 0) {
#pragma unroll
    for (int k = 0; k < STEPS; ++k) step();
  } else {
    for (int k = 0; k < steps; ++k) step();
  }
}

}  // namespace
}  // namespace fastllie
