// The arithmetic of illumination division on one element, shared by the C++ and CUDA kernels; T as in
// inline.h.
#pragma once
#include "inline.h"

namespace fastllie {

// The published code's lower bound of an illumination, 1e-4 in the precision of T.
template <class T>
FASTLLIE_INLINE T illum_min(T one) {
  return one / 10000.0f;
}

// A quotient or illumination cut to [low, one]; a NaN stays one.
template <class T>
FASTLLIE_INLINE T clamp_between(T v, T low, T one) {
  v = v < low ? low : v;
  return v > one ? one : v;
}

// r = clamp(x / illum, 0, 1)
template <class T>
FASTLLIE_INLINE T divide(T x, T illum, T one) {
  return clamp_between(x / illum, one - one, one);
}

// Where the clamp is idle, its bounds included, the gradient passes: d/dx = g / illum, d/dillum = -g q /
// illum.
template <class T>
FASTLLIE_INLINE void divide_backward(T grad, T x, T illum, T one, T& grad_x, T& grad_illum) {
  const T zero = one - one, q = x / illum;
  const auto idle = (q >= zero) & (q <= one);
  grad_x = idle ? grad / illum : zero;
  grad_illum = idle ? -(grad / illum) * q : zero;
}

// illum = clamp(sigmoid(z) + v, 1e-4, 1), with sigmoid(z) = (1 + tanh(z / 2)) / 2 given
template <class T>
FASTLLIE_INLINE T illuminate(T sigmoid, T v, T one) {
  return clamp_between(sigmoid + v, illum_min(one), one);
}

// From the gradients of illum and r = clamp(y / illum, 0, 1) to those of z, v and y.
template <class T>
FASTLLIE_INLINE void illuminate_backward(T grad_illum, T grad_r, T sigmoid, T v, T y, T one, T& grad_z,
                                         T& grad_v, T& grad_y) {
  const T zero = one - one, sum = sigmoid + v;
  T through;
  divide_backward(grad_r, y, illuminate(sigmoid, v, one), one, grad_y, through);
  const auto idle = (sum >= illum_min(one)) & (sum <= one);
  grad_v = idle ? grad_illum + through : zero;
  grad_z = grad_v * sigmoid * (one - sigmoid);
}

}  // namespace fastllie
