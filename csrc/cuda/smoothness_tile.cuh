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
// v or -v: one instruction on the bits
__device__ __forceinline__ float with_sign(float v, float d) {
  unsigned value, sign;
  memcpy(&value, &v, 4);
  memcpy(&sign, &d, 4);
  value ^= sign & 0x80000000u;
  memcpy(&v, &value, 4);
  return v;
}
__device__ __forceinline__ double with_sign(double v, double d) { return copysign(1.0, d) * v; }

struct Task {
  int64_t sizes[4];
  double scale;                               // of colours, so that a weight is 2^-|difference|^2
  View illum, guide, grad_illum, grad_guide;  // a null gradient is not wanted
  double* parts;
  const double *grad, *means;
  int64_t across, down;  // tiles
  // Of each pair number one over how many there are
  double shares[OFFSETS];
  float narrow_shares[OFFSETS];
};

__device__ __forceinline__ void share_of(const Task& task, int d, double& to) { to = task.shares[d]; }
__device__ __forceinline__ void share_of(const Task& task, int d, float& to) { to = task.narrow_shares[d]; }

// The number of the pair of a pixel and the one (dy, dx) further, whichever of them comes first.
__device__ __forceinline__ constexpr int pair_number(int dy, int dx) {
  return dy > 0 || (dy == 0 && dx > 0) ? 5 * dy + dx - 1 : 5 * -dy - dx - 1;
}

template <class T>
struct Held {
  T illum[3][HELD_ROWS<T>][HELD_COLUMNS], colour[3][HELD_ROWS<T>][HELD_COLUMNS];
};

// Illumination and colour of one pixel
template <class T>
struct Pixel {
  T illum[3], colour[3];
};

template <class T>
__device__ __forceinline__ Pixel<T> pixel_of(const Held<T>& held, int row, int column) {
  Pixel<T> pixel;
#pragma unroll
  for (int c = 0; c < 3; ++c) {
    pixel.illum[c] = held.illum[c][row][column];
    pixel.colour[c] = held.colour[c][row][column];
  }
  return pixel;
}

// What two pixels have to do with each other
template <class T>
struct Pair {
  T e[3], a[3], weight, size;
  __device__ __forceinline__ Pair(const Pixel<T>& p, const Pixel<T>& q) {
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      e[c] = p.colour[c] - q.colour[c];
      a[c] = p.illum[c] - q.illum[c];
    }
    weight = exp2_of(-squared(e));
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

template <Color COLOR, class S, class T>
__device__ __forceinline__ void read_colour(const Task& task, int64_t b, int64_t y, int64_t x, T scale,
                                            T (&colour)[3]) {
  if constexpr (COLOR == Color::memory) {
    // three consecutive values are converted together, wherever a row or plane ends
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
  } else {
    T rgb[3];
    const S* const from = at<S>(task.guide, b, 0, y, x);
    for (int c = 0; c < 3; ++c) rgb[c] = scale * widen(from[c * task.guide.strides[1]]);
    if constexpr (COLOR == Color::ycbcr) {
      to_ycbcr<T>(rgb, colour);
    } else {
      for (int c = 0; c < 3; ++c) colour[c] = rgb[c];
    }
  }
}

// What lies at row r, column s of what a block holds from `top` on. Outside of the image the nearest pixel is
// read all the same: a load that nothing has to be asked for is on its way at once.
template <Color COLOR, class S, class T>
__device__ __forceinline__ Pixel<T> fetch(const Task& task, const Corner& corner, int64_t top, int r, int s) {
  const int height = int(task.sizes[2]), width = int(task.sizes[3]);
  const int y = int(top) + r - REACH, x = int(corner.left) + s - REACH;
  const int row = min(max(y, 0), height - 1), column = min(max(x, 0), width - 1);
  const bool inside = y == row && x == column;
  Pixel<T> pixel;
  read_colour<COLOR, S>(task, corner.b, row, column, T(task.scale), pixel.colour);
  const S* const from = at<S>(task.illum, corner.b, 0, row, column);
  for (int c = 0; c < 3; ++c) {
    const T illum = widen(from[c * task.illum.strides[1]]);
    pixel.illum[c] = inside ? illum : T(0);
    pixel.colour[c] = inside ? pixel.colour[c] : T(FAR);
  }
  return pixel;
}

// Fills what a block holds, from `top` on.
template <Color COLOR, class S, class T>
__device__ __forceinline__ void hold(const Task& task, const Corner& corner, int64_t top, Held<T>& held) {
  for (int i = threadIdx.x; i < HELD_ROWS<T> * HELD_COLUMNS; i += THREADS) {
    const int r = i / HELD_COLUMNS, s = i % HELD_COLUMNS;
    const Pixel<T> pixel = fetch<COLOR, S, T>(task, corner, top, r, s);
    for (int c = 0; c < 3; ++c) {
      held.illum[c][r][s] = pixel.illum[c];
      held.colour[c][r][s] = pixel.colour[c];
    }
  }
  __syncthreads();
}

}  // namespace
}  // namespace fastllie
