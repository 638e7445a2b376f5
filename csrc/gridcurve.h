// The arithmetic of the curve in a bilateral grid, shared by the C++ and CUDA kernels; T as in inline.h.
#pragma once
#include "curve.h"
#include "fastllie.h"
#include "illumination.h"
#include "inline.h"

namespace fastllie {

constexpr int GRID_PLANES = 6;  // alpha of three channels, then their black levels
// Rows of a band at most, in float32 sums of which the gradient of the grid loses nothing
constexpr int64_t GRID_BAND = 32;

// Between the middles of two neighbouring cells of the grid there is a gap; the first and the last one go on
// to the edge of the picture, and a single cell is one.
FASTLLIE_INLINE int64_t grid_gaps(int64_t cells) { return cells > 1 ? cells - 1 : 1; }

// Which share a pixel has of the cell behind its gap, in whole numbers until the last moment: the place of
// pixel i in a picture of so many is (i + 1/2) cells / whole - 1/2.
template <class S>
FASTLLIE_INLINE S grid_share(int64_t pixel, int64_t gap, int64_t whole, int64_t cells) {
  const int64_t from_middle = (2 * pixel + 1) * cells - (2 * gap + 1) * whole;
  if (from_middle <= 0 || cells == 1) return S(0);
  return from_middle >= 2 * whole ? S(1) : S(double(from_middle) / double(2 * whole));
}

// The first pixel, of `size` from `place` on, in a gap or behind it.
FASTLLIE_INLINE int64_t grid_gap_begin(int64_t gap, int64_t place, int64_t size, int64_t whole,
                                       int64_t cells) {
  if (gap <= 0) return 0;
  if (gap >= grid_gaps(cells)) return size;
  const int64_t first = ((2 * gap + 1) * whole - cells + 2 * cells - 1) / (2 * cells) - place;
  return first < 0 ? 0 : first < size ? first : size;
}

// Pixels of the longest gap.
FASTLLIE_INLINE int64_t grid_longest(int64_t place, int64_t size, int64_t whole, int64_t cells) {
  int64_t longest = 0;
  for (int64_t gap = 0; gap < grid_gaps(cells); ++gap) {
    const int64_t pixels =
        grid_gap_begin(gap + 1, place, size, whole, cells) - grid_gap_begin(gap, place, size, whole, cells);
    longest = pixels > longest ? pixels : longest;
  }
  return longest;
}

// How many parts of at most `most` pixels the longest gap makes.
FASTLLIE_INLINE int64_t grid_parts(int64_t place, int64_t size, int64_t whole, int64_t cells, int64_t most) {
  const int64_t longest = grid_longest(place, size, whole, cells);
  return longest > most ? (longest + most - 1) / most : 1;
}

// y = clamp((x - black) / (1 - black), 0, 1), then the steps of the curve.
template <class T>
FASTLLIE_INLINE T grid_curve(T x, T alpha, T black, int64_t steps, T one) {
  T y = clamp_between((x - black) / (one - black), one - one, one);
  for (int64_t k = 0; k < steps; ++k) y = curve_step(y, alpha);
  return y;
}

// From the gradient of y to those of x, alpha and black. Through the clamp as in divide_backward.
template <class T>
FASTLLIE_INLINE void grid_curve_backward(T x, T alpha, T black, int64_t steps, T one, T grad, T& grad_x,
                                         T& grad_alpha, T& grad_black) {
  const T zero = one - one, q = (x - black) / (one - black), start = clamp_between(q, zero, one);
  grad_alpha = zero;
  // a chunk's states are recomputed into registers; the state before it from its start, at no memory
  for (int64_t first = (steps - 1) / CHUNK * CHUNK; first >= 0; first -= CHUNK) {
    T state = start, states[CHUNK];
    for (int64_t k = 0; k < first; ++k) state = curve_step(state, alpha);
    FASTLLIE_UNROLL
    for (int k = 0; k < CHUNK; ++k) {
      states[k] = state;
      state = curve_step(state, alpha);
    }
    FASTLLIE_UNROLL
    for (int k = CHUNK - 1; k >= 0; --k) {
      if (first + k < steps) grad_alpha = grad_alpha + curve_step_backward(states[k], alpha, one, grad);
    }
  }
  const auto idle = (q >= zero) & (q <= one);
  grad_x = idle ? grad / (one - black) : zero;
  grad_black = grad_x * (q - one);
}

}  // namespace fastllie
