// The CPU kernels for AVX2.
#if defined(__x86_64__)
#include "cpu/isa_tasks.h"

#define FASTLLIE_SET avx2
#define FASTLLIE_AVX2
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif

#include "cpu/isa_loops.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
