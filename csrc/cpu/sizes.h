// Whole parts of sizes, and the smaller of two.
#pragma once
#include <cstdint>

#include "inline.h"

namespace fastllie {

FASTLLIE_INLINE constexpr int64_t parts(int64_t total, int64_t part) { return (total + part - 1) / part; }
FASTLLIE_INLINE constexpr int64_t rounded_up(int64_t value, int64_t to) { return parts(value, to) * to; }
FASTLLIE_INLINE constexpr int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

}  // namespace fastllie
