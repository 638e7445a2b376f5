// Vectors of one register, and the arithmetic that has no operator. Included once for each instruction set,
// inside that set's namespace: nothing here has linkage beyond it. Not wider: GCC takes such vectors apart
// lane by lane where it compares or chooses, and AVX2 was then no faster than SSE2.

#if defined(FASTLLIE_AVX512)
constexpr int VECTOR_BYTES = 64;
#elif defined(FASTLLIE_AVX2)
constexpr int VECTOR_BYTES = 32;
#else
constexpr int VECTOR_BYTES = 16;  // SSE2, NEON
#endif

typedef float f32v __attribute__((vector_size(VECTOR_BYTES)));
typedef double f64v __attribute__((vector_size(VECTOR_BYTES)));
typedef uint32_t u32v __attribute__((vector_size(VECTOR_BYTES)));
typedef int32_t i32v __attribute__((vector_size(VECTOR_BYTES)));
typedef uint64_t u64v __attribute__((vector_size(VECTOR_BYTES)));
typedef int64_t i64v __attribute__((vector_size(VECTOR_BYTES)));
// as many lanes of narrower types
typedef uint16_t u16v __attribute__((vector_size(VECTOR_BYTES / 2)));
typedef uint8_t u8v __attribute__((vector_size(VECTOR_BYTES / 4)));

template <class T>
struct VectorOf;
template <>
struct VectorOf<float> {
  using type = f32v;
};
template <>
struct VectorOf<double> {
  using type = f64v;
};
template <class T>
using Vector = typename VectorOf<T>::type;
template <class T>
constexpr int LANES = sizeof(Vector<T>) / sizeof(T);

// What of the two is larger, or smaller, in one instruction; a NaN in v stays one.
struct Bounds {
#if defined(FASTLLIE_AVX512)
  FASTLLIE_INLINE f32v at_least(f32v v, f32v low) {
    return (f32v)_mm512_maskz_max_ps(0xffff, (__m512)low, (__m512)v);
  }
  FASTLLIE_INLINE f64v at_least(f64v v, f64v low) {
    return (f64v)_mm512_maskz_max_pd(0xff, (__m512d)low, (__m512d)v);
  }
  FASTLLIE_INLINE f32v at_most(f32v v, f32v high) {
    return (f32v)_mm512_maskz_min_ps(0xffff, (__m512)high, (__m512)v);
  }
  FASTLLIE_INLINE f64v at_most(f64v v, f64v high) {
    return (f64v)_mm512_maskz_min_pd(0xff, (__m512d)high, (__m512d)v);
  }
#elif defined(FASTLLIE_AVX2)
  FASTLLIE_INLINE f32v at_least(f32v v, f32v low) { return (f32v)_mm256_max_ps((__m256)low, (__m256)v); }
  FASTLLIE_INLINE f64v at_least(f64v v, f64v low) { return (f64v)_mm256_max_pd((__m256d)low, (__m256d)v); }
  FASTLLIE_INLINE f32v at_most(f32v v, f32v high) { return (f32v)_mm256_min_ps((__m256)high, (__m256)v); }
  FASTLLIE_INLINE f64v at_most(f64v v, f64v high) { return (f64v)_mm256_min_pd((__m256d)high, (__m256d)v); }
#elif defined(__SSE2__)
  FASTLLIE_INLINE f32v at_least(f32v v, f32v low) { return (f32v)_mm_max_ps((__m128)low, (__m128)v); }
  FASTLLIE_INLINE f64v at_least(f64v v, f64v low) { return (f64v)_mm_max_pd((__m128d)low, (__m128d)v); }
  FASTLLIE_INLINE f32v at_most(f32v v, f32v high) { return (f32v)_mm_min_ps((__m128)high, (__m128)v); }
  FASTLLIE_INLINE f64v at_most(f64v v, f64v high) { return (f64v)_mm_min_pd((__m128d)high, (__m128d)v); }
#else
  FASTLLIE_INLINE f32v at_least(f32v v, f32v low) { return v < low ? low : v; }
  FASTLLIE_INLINE f64v at_least(f64v v, f64v low) { return v < low ? low : v; }
  FASTLLIE_INLINE f32v at_most(f32v v, f32v high) { return high < v ? high : v; }
  FASTLLIE_INLINE f64v at_most(f64v v, f64v high) { return high < v ? high : v; }
#endif
};

template <class V, class S>
FASTLLIE_INLINE V load(const S* from) {
  V v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}

// A value in all lanes, in one instruction. V{} + value would be an addition more: 0 + -0 is not -0.
template <class V, class S>
FASTLLIE_INLINE V broadcast(S value) {
  return std::decay_t<decltype(V{}[0])>(value) - V{};
}

// Past the caches where asked: the lines of a large output would be read first and push out what is still
// needed. The backward at 1920x1080 takes 5.5 ms instead of 8.4 (AVX-512 on an EPYC, 2 threads).
template <class V, class S>
FASTLLIE_INLINE void store(S* to, V v, bool stream) {
#if defined(__SSE2__)
  if (stream) {
#if defined(FASTLLIE_AVX512)
    if constexpr (sizeof v == 64) _mm512_stream_si512(reinterpret_cast<__m512i*>(to), (__m512i)v);
#endif
#if defined(FASTLLIE_AVX2) || defined(FASTLLIE_AVX512)
    if constexpr (sizeof v == 32) _mm256_stream_si256(reinterpret_cast<__m256i*>(to), (__m256i)v);
#endif
    if constexpr (sizeof v == 16) _mm_stream_si128(reinterpret_cast<__m128i*>(to), (__m128i)v);
    if constexpr (sizeof v == 8) {
      long long bits;
      __builtin_memcpy(&bits, &v, sizeof v);
      _mm_stream_si64(reinterpret_cast<long long*>(to), bits);
    }
    if constexpr (sizeof v == 4) {
      int bits;
      __builtin_memcpy(&bits, &v, sizeof v);
      _mm_stream_si32(reinterpret_cast<int*>(to), bits);
    }
    return;
  }
#endif
  __builtin_memcpy(to, &v, sizeof v);
}

// Before another thread may read what was streamed.
FASTLLIE_INLINE void finish_streams() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

FASTLLIE_INLINE f32v tanh_of(f32v z, f32v one) { return tanh_rational(z, one); }
FASTLLIE_INLINE f64v tanh_of(f64v z, f64v) {
  // float64 serves gradient checks: precision before speed
  for (int i = 0; i < LANES<double>; ++i) z[i] = std::tanh(z[i]);
  return z;
}

// e^z = 2^k e^r with |r| <= ln(2) / 2 and the series of e^r to r^7: a relative error of 1e-7 on [-87, 87],
// beyond which the result stays at that bound's.
FASTLLIE_INLINE f32v exp_of(f32v z, f32v one) {
  z = Bounds::at_least(Bounds::at_most(z, one * 87.0f), one * -87.0f);
  // adding 1.5 * 2^23 leaves the nearest integer in the low bits
  const f32v shifted = z * 1.44269504f + 12582912.0f;
  const f32v k = shifted - 12582912.0f;
  const f32v r = (z - k * 0.693145752f) - k * 1.42860677e-6f;
  f32v p = r * (1.0f / 5040) + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  return (f32v)((u32v)p + ((u32v)shifted << 23));
}
FASTLLIE_INLINE f64v exp_of(f64v z, f64v) {
  for (int i = 0; i < LANES<double>; ++i) z[i] = std::exp(z[i]);
  return z;
}

// 2^-z for z >= -126, with a relative error of 1e-7; 0, or next to it, where that is no normal number.
FASTLLIE_INLINE f32v exp2_of_minus(f32v z) {
#if defined(FASTLLIE_AVX512)
  const f32v k =
      (f32v)_mm512_maskz_roundscale_ps(0xffff, (__m512)z, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
  z = Bounds::at_most(z, broadcast<f32v>(127.0f));
  // adding 1.5 * 2^23 leaves the nearest integer in the low bits
  const f32v shifted = z + 12582912.0f;
  const f32v k = shifted - 12582912.0f;
#endif
  const f32v r = k - z;
  f32v p = r * 0.00132647275f + 0.00967151271f;
  p = p * r + 0.0555073374f;
  p = p * r + 0.240222421f;
  p = p * r + 0.693146978f;
  p = p * r + 1.0f;
#if defined(FASTLLIE_AVX512)
  return (f32v)_mm512_maskz_scalef_ps(0xffff, (__m512)p, (__m512)-k);
#else
  return (f32v)((u32v)p - ((u32v)shifted << 23));
#endif
}
FASTLLIE_INLINE f64v exp2_of_minus(f64v z) {
  for (int i = 0; i < LANES<double>; ++i) z[i] = std::exp2(-z[i]);
  return z;
}

// The first `count` lanes, zeros in the others.
FASTLLIE_INLINE f32v keep(f32v v, int64_t count) {
  i32v lanes;
  for (int i = 0; i < LANES<float>; ++i) lanes[i] = i;
  return lanes < int32_t(count) ? v : f32v{};
}
FASTLLIE_INLINE f64v keep(f64v v, int64_t count) {
  i64v lanes;
  for (int i = 0; i < LANES<double>; ++i) lanes[i] = i;
  return lanes < count ? v : f64v{};
}

// |v|, and v with the sign of d, or zero where d is zero: by their bits, in one and two instructions of
// AVX-512.
FASTLLIE_INLINE f32v magnitude(f32v v) { return (f32v)((u32v)v & 0x7fffffffu); }
FASTLLIE_INLINE f64v magnitude(f64v v) { return (f64v)((u64v)v & 0x7fffffffffffffffu); }
FASTLLIE_INLINE f32v with_sign(f32v v, f32v d) {
  return d != f32v{} ? (f32v)((u32v)v ^ ((u32v)d & 0x80000000u)) : f32v{};
}
FASTLLIE_INLINE f64v with_sign(f64v v, f64v d) {
  return d != f64v{} ? (f64v)((u64v)v ^ ((u64v)d & 0x8000000000000000u)) : f64v{};
}

// Eight steps of the curve, whose map stays the same, of several vectors together: the steps of one wait for
// each other.
template <int N>
FASTLLIE_INLINE void brighten(f32v (&x)[N], const f32v (&alpha)[N]) {
#pragma GCC unroll 8
  for (int step = 0; step < CHUNK; ++step)
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) x[n] = curve_step(x[n], alpha[n]);
}
