// The CPU kernels that multiply pairs of bfloat16, for AVX-512 with that extension.
#if defined(__x86_64__)
#include "cpu/isa_tasks.h"

#define FASTLLIE_SET avx512_bf16
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

#include "cpu/isa_loops.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
