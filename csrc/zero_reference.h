// The arithmetic of the zero-reference losses on one element, shared by the C++ and CUDA kernels; T as in
// inline.h.
#pragma once
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

}  // namespace fastllie
