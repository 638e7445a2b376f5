// The CPU kernels that multiply tiles of bfloat16, for AVX-512 with AMX.
#include "cpu/isa_tasks.h"

#if defined(FASTLLIE_KNOWS_TILES)
#define FASTLLIE_SET amx
#define FASTLLIE_AVX512
#define FASTLLIE_TILES
#if defined(__clang__)
#pragma clang attribute push(                                                                      \
    __attribute__((                                                                                \
        target("amx-bf16,amx-tile,avx512bf16,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c"))), \
    apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target( \
    "amx-bf16,amx-tile,avx512bf16,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c,prefer-vector-width=512")
#endif

#include "cpu/isa_loops.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
