// The CPU kernels that multiply pairs of bfloat16, for AVX-512 with that extension.
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
#include "cpu/zerodce_task.h"
#include "curve.h"

#define FASTLLIE_AVX512
#define FASTLLIE_BF16
#if defined(__clang__)
#pragma clang attribute push(                                                               \
    __attribute__((target("avx512bf16,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c"))), \
    apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512bf16,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c,prefer-vector-width=512")
#endif

namespace fastllie::avx512_bf16 {
#include "cpu/simd.h"

#include "cpu/pack.h"

#include "cpu/transpose.h"

#include "cpu/convolution_gather.h"
#include "cpu/convolution_multiply.h"
#include "cpu/winograd.h"

#include "cpu/convolution_loops.h"

#include "cpu/zerodce_loops.h"
}  // namespace fastllie::avx512_bf16

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
