// The arithmetic of the zero-reference losses on one element, shared by the C++ and CUDA kernels; T as in
// inline.h.
#pragma once
#include <cmath>

#include "fastllie.h"
#include "inline.h"

namespace fastllie {

// What the squared differences of neighbours give each of them, times the gradient of their loss: by the
// published code's factors, twice the mean over the pairs of a map, summed over maps and averaged over
// images.
struct VariationFactors {
  double vertical, horizontal;
};

FASTLLIE_INLINE VariationFactors variation_factors(const int64_t* sizes, double grad) {
  const double b = double(sizes[0]), h = double(sizes[2]), w = double(sizes[3]);
  return {grad * 4 / (b * (h - 1) * w), grad * 4 / (b * h * (w - 1))};
}

// At the border of an image an element is its own neighbour.
template <class T>
FASTLLIE_INLINE T variation_slope(T a, T up, T down, T left, T right, T vertical, T horizontal) {
  return vertical * ((a - up) + (a - down)) + horizontal * ((a - left) + (a - right));
}

// What the steps up and to the left of a cell, and those beyond the last cells, add to the spatial loss: as
// the published code pads with zeros, a step at the border counts once, and between two cells twice. A is
// the type of the arithmetic.
template <class A, class T>
FASTLLIE_INLINE A steps_of(const T* cells, int down, int across, int i, int j) {
  const T* const from = cells + i * int64_t{across} + j;
  const A middle = *from, up = i ? middle - from[-across] : middle, left = j ? middle - from[-1] : middle;
  A sum = (i ? 2 : 1) * up * up + (j ? 2 : 1) * left * left;
  if (i == down - 1) sum += middle * middle;
  if (j == across - 1) sum += middle * middle;
  return sum;
}

// Half of what the sum of the spatial loss grows by with a cell; see steps_of
template <class A, class T>
FASTLLIE_INLINE A slope_of_steps(const T* cells, int down, int across, int i, int j) {
  const T* const from = cells + i * int64_t{across} + j;
  const A middle = *from;
  const auto step = [&](bool there, int64_t to) { return there ? 2 * (middle - from[to]) : middle; };
  return step(i > 0, -across) + step(i < down - 1, across) + step(j > 0, -1) + step(j < across - 1, 1);
}

// Half of what the root of the sum of the fourth powers of the means' differences grows by with a channel;
// zero where they are all equal.
template <class T>
FASTLLIE_INLINE T slope_of_colour(const double* means, int c) {
  const T one = T(means[c] - means[(c + 1) % 3]), two = T(means[c] - means[(c + 2) % 3]), rest = two - one;
  T largest = one * one > two * two ? one : two;
  largest = rest * rest > largest * largest ? rest : largest;
  if (largest == 0) return T(0);
  // as shares of the largest, of whose powers T may not be able to hold any
  const T a = one / largest, b = two / largest, d = rest / largest;
  return largest * (a * a * a + b * b * b) / std::sqrt(a * a * a * a + b * b * b * b + d * d * d * d);
}

}  // namespace fastllie
