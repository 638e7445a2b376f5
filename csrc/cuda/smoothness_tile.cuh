// What a block of the smoothness loss holds in shared memory, and what two of its pixels have to do with each
// other.
#pragma once
#include "access.cuh"
#include "smoothness.h"

namespace fastllie {
namespace {

// A block's pixels, with those around them. Each warp has some rows of them, and each lane a column: what a
// thread reads of a row of neighbours serves all of its pixels.
constexpr int COLUMNS = 32, LINES = 32, WARPS = THREADS / 32;
constexpr int HELD_COLUMNS = COLUMNS + 2 * REACH, ACROSS = 2 * REACH + 1;
// float64 takes the lines in two parts, or they would not fit into 48 KiB
template <class T>
constexpr int PARTS = sizeof(T) / 4;
template <class T>
constexpr int ROWS = LINES / (WARPS * PARTS<T>);
template <class T>
constexpr int HELD_ROWS = WARPS * ROWS<T> + 2 * REACH;
// The colour of what lies outside of the image: so far from any other that its weight is 0
constexpr float FAR = 1e18f;

__device__ __forceinline__ float exp2_of(float z) { return power_of_two(z); }
__device__ __forceinline__ double exp2_of(double z) { return ::exp2(z); }
__device__ __forceinline__ float magnitude(float d) { return fabsf(d); }
__device__ __forceinline__ double magnitude(double d) { return fabs(d); }
// 1 above zero, 0 below, 1/2 at zero, for what is not subnormal: one instruction
__device__ __forceinline__ float above_zero(float v) { return __saturatef(fmaf(v, 0x1p126f, 0.5f)); }
__device__ __forceinline__ double above_zero(double v) { return v > 0 ? 1 : v < 0 ? 0 : 0.5; }

struct Task {
  int64_t sizes[4];
  double scale;                               // of colours, so that a weight is 2^-|difference|^2
  View illum, guide, grad_illum, grad_guide;  // a null gradient is not wanted
  double* parts;
  const double *grad, *means;
  int64_t across, down;  // tiles
  // Of each pair number one over how many there are, and the logarithm of that as a share of the first
  double shares[OFFSETS], exponents[OFFSETS];
  float narrow_exponents[OFFSETS];
};

__device__ __forceinline__ void exponent_of(const Task& task, int d, double& to) { to = task.exponents[d]; }
__device__ __forceinline__ void exponent_of(const Task& task, int d, float& to) {
  to = task.narrow_exponents[d];
}

// The number of the pair of a pixel and the one (dy, dx) further, whichever of them comes first.
__device__ __forceinline__ constexpr int pair_number(int dy, int dx) {
  return dy > 0 || (dy == 0 && dx > 0) ? 5 * dy + dx - 1 : 5 * -dy - dx - 1;
}

// Of each pixel illumination and colour. Two values are read at once: words of so many, 24 bytes apart or 48,
// lie in different banks.
template <class T>
struct Held {
  alignas(16) T values[HELD_ROWS<T>][HELD_COLUMNS][6];
};

// Illumination and colour of one pixel
template <class T>
struct Pixel {
  T illum[3], colour[3];
};

template <class T>
__device__ __forceinline__ bool in_image(const Pixel<T>& pixel) {
  return pixel.colour[0] != T(FAR);
}

template <class T>
__device__ __forceinline__ Pixel<T> pixel_of(const Held<T>& held, int row, int column) {
  const T* const from = held.values[row][column];
  const Pack<T, 2> first = load<2>(from), second = load<2>(from + 2), third = load<2>(from + 4);
  return {{first.values[0], first.values[1], second.values[0]},
          {second.values[1], third.values[0], third.values[1]}};
}

template <class T>
__device__ __forceinline__ void put(T* to, T first, T second) {
  const Pack<T, 2> pack{{first, second}};
  typename Words<sizeof(pack)>::type words;
  memcpy(&words, &pack, sizeof pack);
  *reinterpret_cast<decltype(words)*>(to) = words;
}

// What two pixels have to do with each other. The weight is that of the pair times 2^exponent.
template <class T>
struct Pair {
  T e[3], a[3], weight, size;
  __device__ __forceinline__ Pair(const Pixel<T>& p, const Pixel<T>& q, T exponent) {
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      e[c] = p.colour[c] - q.colour[c];
      a[c] = p.illum[c] - q.illum[c];
      exponent -= e[c] * e[c];
    }
    weight = exp2_of(exponent);
    size = magnitude(a[0]) + magnitude(a[1]) + magnitude(a[2]);
  }
};

// Where a block's pixels are
struct Corner {
  int64_t b, top, left;
  __device__ __forceinline__ explicit Corner(const Task& task) {
    int64_t i = blockIdx.x;
    left = i % task.across * COLUMNS;
    i /= task.across;
    top = i % task.down * LINES;
    b = i / task.down;
  }
};

// A column of what a block holds. Outside of the image the nearest pixel is read all the same: a load that
// nothing has to be asked for is on its way at once.
template <class S>
struct Column {
  const S *illum, *guide;  // in the first row of the image
  int x;
  bool inside;
  __device__ __forceinline__ Column(const Task& task, const Corner& corner, int s) {
    const int given = int(corner.left) + s - REACH;
    x = min(max(given, 0), int(task.sizes[3]) - 1);
    inside = x == given;
    illum = at<S>(task.illum, corner.b, 0, 0, x);
    guide = at<S>(task.guide, corner.b, 0, 0, x);
  }
};

// Three consecutive values are converted together, wherever a row or plane ends
template <class S, class T>
__device__ __forceinline__ void read_in_memory_order(const Task& task, int64_t b, int64_t y, int64_t x,
                                                     T scale, T (&colour)[3]) {
  const int64_t* const sizes = task.sizes;
  const int64_t plane = sizes[2] * sizes[3];
  const S* const image = static_cast<const S*>(task.guide.data) + b * 3 * plane;
  for (int c = 0; c < 3; ++c) {
    const int64_t m = c * plane + y * sizes[3] + x;
    const int j = static_cast<int>(m % 3);
    T sum = T(j == 0 ? ycbcr_bias(0) : ycbcr_bias(1));
    for (int i = 0; i < 3; ++i) {
      // chosen, not indexed: the matrix stays in the instructions
      const T factor = T(j == 0 ? ycbcr(i, 0) : j == 1 ? ycbcr(i, 1) : ycbcr(i, 2));
      sum += widen(image[m - j + i]) * factor;
    }
    colour[c] = scale * sum;
  }
}

// What lies in a column at row r of what a block holds from `top` on
template <Color COLOR, class S, class T>
__device__ __forceinline__ Pixel<T> fetch(const Task& task, const Corner& corner, const Column<S>& column,
                                          int top, int r) {
  const int y = top + r - REACH;
  const unsigned row = unsigned(min(max(y, 0), int(task.sizes[2]) - 1));
  const bool inside = column.inside && y == int(row);
  const T scale = T(task.scale);
  T illum[3], colour[3];
  const S* from = column.illum + row * task.illum.strides[2];
#pragma unroll
  for (int c = 0; c < 3; ++c) {
    illum[c] = widen(*from);
    from += task.illum.strides[1];
  }
  if constexpr (COLOR == Color::memory) {
    read_in_memory_order<S>(task, corner.b, row, column.x, scale, colour);
  } else {
    T rgb[3];
    from = column.guide + row * task.guide.strides[2];
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      rgb[c] = scale * widen(*from);
      from += task.guide.strides[1];
    }
    if constexpr (COLOR == Color::ycbcr) {
      to_ycbcr<T>(rgb, colour);
    } else {
      for (int c = 0; c < 3; ++c) colour[c] = rgb[c];
    }
  }
  Pixel<T> pixel;
#pragma unroll
  for (int c = 0; c < 3; ++c) {
    pixel.illum[c] = inside ? illum[c] : T(0);
    pixel.colour[c] = inside ? colour[c] : T(FAR);
  }
  return pixel;
}

// Fills what a block holds, from `top` on: a warp takes rows of 32 columns, in which only the row changes;
// and then all take what is beside them.
template <Color COLOR, class S, class T>
__device__ __forceinline__ void hold(const Task& task, const Corner& corner, int64_t top, Held<T>& held) {
  constexpr int BESIDE = HELD_COLUMNS - COLUMNS, TURNS = (HELD_ROWS<T> + WARPS - 1) / WARPS;
  const auto keep = [&](const Column<S>& column, int r, int s) {
    const Pixel<T> pixel = fetch<COLOR, S, T>(task, corner, column, int(top), r);
    T* const to = held.values[r][s];
    put(to, pixel.illum[0], pixel.illum[1]);
    put(to + 2, pixel.illum[2], pixel.colour[0]);
    put(to + 4, pixel.colour[1], pixel.colour[2]);
  };
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const Column<S> mine(task, corner, lane);
  // all loads before the first use, but for what takes many of them
#pragma unroll(COLOR == Color::memory || sizeof(T) > 4 ? 1 : TURNS)
  for (int turn = 0; turn < TURNS; ++turn) {
    const int r = warp + turn * WARPS;
    if (turn < TURNS - 1 || r < HELD_ROWS<T>) keep(mine, r, lane);
  }
#pragma unroll 1
  for (int i = threadIdx.x; i < HELD_ROWS<T> * BESIDE; i += THREADS) {
    const int s = COLUMNS + i % BESIDE;
    keep(Column<S>(task, corner, s), i / BESIDE, s);
  }
  __syncthreads();
}

}  // namespace
}  // namespace fastllie
