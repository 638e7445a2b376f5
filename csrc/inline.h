// How the arithmetic that C++ and CUDA share is declared. There T is float, double, or a vector of either:
// whatever the loops around it hold in registers.
#pragma once

#if defined(__CUDACC__)
#define FASTLLIE_INLINE static __host__ __device__ __forceinline__
#elif defined(__GNUC__) || defined(__clang__)
// always: a copy of a template that is not inlined would be shared between instruction sets by the linker
#define FASTLLIE_INLINE static inline __attribute__((always_inline))
#else
#define FASTLLIE_INLINE static inline
#endif

// Before a loop of at most eight rounds over what shall stay in registers.
#if defined(__CUDACC__)
#define FASTLLIE_UNROLL _Pragma("unroll")
#elif defined(__GNUC__) && !defined(__clang__)
#define FASTLLIE_UNROLL _Pragma("GCC unroll 8")
#else
#define FASTLLIE_UNROLL
#endif
