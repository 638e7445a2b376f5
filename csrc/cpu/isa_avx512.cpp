// The CPU kernels for AVX512.
#if defined(__x86_64__)
// Standard headers stand before the target changes: what they define is shared with code for every machine.
#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

#include "cpu/convolution_task.h"
#include "cpu/convolution_training_task.h"
#include "cpu/curve_task.h"
#include "cpu/zerodce_task.h"
#include "cpu/zerodcepp_task.h"
#include "cpu/map_task.h"
#include "cpu/sci_task.h"
#include "cpu/smoothness_task.h"
#include "cpu/zero_reference_task.h"

#define FASTLLIE_AVX512
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c,prefer-vector-width=512")
#endif

#include "sci.h"
#include "smoothness.h"
#include "zero_reference.h"

namespace fastllie::avx512 {
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
}  // namespace fastllie::avx512

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
