// float16, converted as a GPU does: to the nearest, ties to even.
#pragma once
#include "cuda_runtime.h"

struct __half {
  uint16_t bits;
};

inline float __half2float(__half v) {
  const uint32_t sign = uint32_t(v.bits & 0x8000) << 16, exponent = v.bits >> 10 & 31,
                 mantissa = v.bits & 1023;
  uint32_t bits = sign | (exponent + 112) << 23 | mantissa << 13;
  if (exponent == 31) bits = sign | 0x7f800000 | mantissa << 13;
  float to;
  std::memcpy(&to, &bits, 4);
  if (exponent == 0) to = (sign ? -1.0f : 1.0f) * float(mantissa) * 0x1p-24f;
  return to;
}

inline __half __float2half_rn(float v) {
  if (v != v) return {0x7fff};
  uint32_t bits;
  std::memcpy(&bits, &v, 4);
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
  const float size = std::fabs(v);
  if (size >= 65520.0f) return {static_cast<uint16_t>(sign | 0x7c00)};
  // a mantissa that rounds up to the next power carries into the exponent, as it shall
  if (size < 0x1p-14f)
    return {static_cast<uint16_t>(sign | static_cast<uint32_t>(std::nearbyint(size * 0x1p24f)))};
  bits = (bits & 0x7fffffff) - (112u << 23);
  return {static_cast<uint16_t>(sign | (bits + 0xfff + (bits >> 13 & 1)) >> 13)};
}
