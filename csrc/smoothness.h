// The arithmetic of the smoothness loss on one pixel or pair of pixels, shared by the C++ and CUDA kernels; T
// as in inline.h.
#pragma once
#include "fastllie.h"
#include "inline.h"

namespace fastllie {

constexpr double LOG2_E = 1.4426950408889634;

// Pair number d is a pixel and the one (offset_y, offset_x) further: the half of the 5x5 window that comes
// later.
FASTLLIE_INLINE constexpr int offset_y(int d) { return (d + 3) / 5; }
FASTLLIE_INLINE constexpr int offset_x(int d) { return (d + 3) % 5 - 2; }

// How many pairs number d there are.
FASTLLIE_INLINE int64_t pairs_of(const int64_t* sizes, int d) {
  const int dx = offset_x(d);
  return sizes[0] * (sizes[2] - offset_y(d)) * (sizes[3] - (dx < 0 ? -dx : dx));
}

// The published conversion: rows R, G, B, columns Y, Cb, Cr. Its 0.564 stands where BT.601 has 0.504.
FASTLLIE_INLINE constexpr double ycbcr(int i, int j) {
  constexpr double matrix[3][3] = {{0.257, -0.148, 0.439}, {0.564, -0.291, -0.368}, {0.098, 0.439, -0.071}};
  return matrix[i][j];
}
FASTLLIE_INLINE constexpr double ycbcr_bias(int j) { return (j == 0 ? 16.0 : 128.0) / 255; }

// Without the bias, which no difference of like components has. S is the scalar type of T.
template <class S, class T>
FASTLLIE_INLINE void to_ycbcr(const T (&rgb)[3], T (&colour)[3]) {
  for (int j = 0; j < 3; ++j)
    colour[j] = rgb[0] * S(ycbcr(0, j)) + rgb[1] * S(ycbcr(1, j)) + rgb[2] * S(ycbcr(2, j));
}

// From the gradient of a colour to that of its pixel.
template <class S, class T>
FASTLLIE_INLINE void from_ycbcr(const T (&colour)[3], T (&rgb)[3]) {
  for (int i = 0; i < 3; ++i)
    rgb[i] = colour[0] * S(ycbcr(i, 0)) + colour[1] * S(ycbcr(i, 1)) + colour[2] * S(ycbcr(i, 2));
}

// The squared distance of two colours by their differences in each component.
template <class T>
FASTLLIE_INLINE T squared(const T (&e)[3]) {
  return e[0] * e[0] + e[1] * e[1] + e[2] * e[2];
}

}  // namespace fastllie
