// The CPU kernels for whatever the compiler's target has: SSE2 on x86-64, NEON on arm64.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "cpu/convolution_task.h"
#include "cpu/convolution_training_task.h"
#include "cpu/curve_task.h"
#include "cpu/zerodce_task.h"
#include "cpu/zerodcepp_task.h"
#include "cpu/map_task.h"
#include "cpu/sci_task.h"
#include "cpu/smoothness_task.h"
#include "cpu/zero_reference_task.h"
#include "sci.h"
#include "smoothness.h"
#include "zero_reference.h"

namespace fastllie::baseline {
#include "cpu/simd.h"

#include "cpu/pack.h"

#include "cpu/transpose.h"

#include "cpu/convolution_gather.h"
#include "cpu/convolution_multiply.h"
#include "cpu/winograd.h"

#include "cpu/convolution_loops.h"
#include "cpu/convolution_training_loops.h"

#include "cpu/curve_loops.h"
#include "cpu/zerodce_loops.h"
#include "cpu/zerodcepp_loops.h"
#include "cpu/illumination_loops.h"
#include "cpu/sci_loops.h"
#include "cpu/smoothness_loops.h"
#include "cpu/zero_reference_loops.h"
}  // namespace fastllie::baseline
