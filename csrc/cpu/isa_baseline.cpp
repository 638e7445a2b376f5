// The CPU kernels for whatever the compiler's target has: SSE2 on x86-64, NEON on arm64.
#include <array>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "cpu/curve_task.h"
#include "cpu/map_task.h"
#include "cpu/sci_task.h"
#include "sci.h"

namespace fastllie::baseline {
#include "cpu/simd.h"

#include "cpu/pack.h"

#include "cpu/curve_loops.h"
#include "cpu/illumination_loops.h"
#include "cpu/sci_loops.h"
}  // namespace fastllie::baseline
