// The arithmetic of the curve on one element, shared by the C++ and CUDA kernels; T as in inline.h.
#pragma once
#include "inline.h"

namespace fastllie {

constexpr int CHUNK = 8;  // steps whose states the backward keeps in registers at a time: Zero-DCE's eight

template <class T>
FASTLLIE_INLINE T curve_step(T x, T a) {
  return x + a * (x - x * x);
}

// From the gradient after a step to the one before it; returns the gradient of the step's map.
template <class T>
FASTLLIE_INLINE T curve_step_backward(T x, T a, T one, T& grad) {
  const T grad_a = grad * (x - x * x);
  grad = grad + grad * a * (one - (x + x));
  return grad_a;
}

// tanh(z) = z P(z^2) / Q(z^2), fitted on [-8, 8] with a relative error of 6.4e-9; in float32
// arithmetic 3.5e-7. Beyond 8 it is 1 to the last bit but two. Q is between 1 and 243.
template <class T>
FASTLLIE_INLINE void tanh_fraction(T z, T one, T& numerator, T& denominator) {
  const T bound = one * 8.0f;
  z = z > bound ? bound : z;
  z = z < -bound ? -bound : z;
  const T t = z * z;
  const T p =
      one + t * (0.13444505631923676f +
                 t * (0.0035716071724891663f + t * (2.189481347159017e-05f + t * 1.5230632754992257e-08f)));
  numerator = z * p;
  denominator =
      one + t * (0.4677783250808716f +
                 t * (0.026164477691054344f + t * (0.00034113071160390973f + t * 8.522533789800946e-07f)));
}

template <class T>
FASTLLIE_INLINE T tanh_rational(T z, T one) {
  T numerator, denominator;
  tanh_fraction(z, one, numerator, denominator);
  return numerator / denominator;
}

}  // namespace fastllie
