// Vectors of one cache line, and how each storage type is read into them and written back.
// Included once for each instruction set, inside that set's namespace: nothing here has linkage beyond it.
// The compiler lowers a 64-byte vector to one AVX-512, two AVX2 or four SSE/NEON registers.

typedef float f32v __attribute__((vector_size(64)));
typedef double f64v __attribute__((vector_size(64)));
typedef uint32_t u32v __attribute__((vector_size(64)));
typedef uint64_t u64v __attribute__((vector_size(64)));
typedef uint16_t u16v __attribute__((vector_size(32)));

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

template <class V, class S>
FASTLLIE_INLINE V load(const S* from) {
  V v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}

// Past the caches where asked: the lines of a large output would be read first and push out what is still
// needed. The backward at 1920x1080 takes 5.5 ms instead of 8.4 (AVX-512 on an EPYC, 2 threads).
template <class V, class S>
FASTLLIE_INLINE void store(S* to, V v, bool stream) {
#if defined(FASTLLIE_AVX512)
  if (stream) {
    if constexpr (sizeof(V) == 64) {
      _mm512_stream_si512(reinterpret_cast<__m512i*>(to), (__m512i)v);
    } else {
      _mm256_stream_si256(reinterpret_cast<__m256i*>(to), (__m256i)v);
    }
    return;
  }
#elif defined(FASTLLIE_AVX2)
  if (stream) {
    __m256i parts[sizeof(V) / 32];
    __builtin_memcpy(parts, &v, sizeof v);
    for (unsigned i = 0; i < sizeof(V) / 32; ++i)
      _mm256_stream_si256(reinterpret_cast<__m256i*>(to) + i, parts[i]);
    return;
  }
#elif defined(__SSE2__)
  if (stream) {
    __m128i parts[sizeof(V) / 16];
    __builtin_memcpy(parts, &v, sizeof v);
    for (unsigned i = 0; i < sizeof(V) / 16; ++i)
      _mm_stream_si128(reinterpret_cast<__m128i*>(to) + i, parts[i]);
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

FASTLLIE_INLINE f32v widen_bf16(u16v stored) { return (f32v)(__builtin_convertvector(stored, u32v) << 16); }

// To nearest, ties to even; a NaN stays one.
FASTLLIE_INLINE u16v narrow_bf16(f32v v) {
  const u32v bits = (u32v)v;
  const u32v rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const u32v nan = (bits >> 16) | 0x40;
  return __builtin_convertvector(v == v ? rounded : nan, u16v);
}

FASTLLIE_INLINE f32v widen_f16(u16v stored) {
  const u32v bits = __builtin_convertvector(stored, u32v);
  const u32v magnitude = bits & 0x7fff;
  // the exponent moves from bias 15 to bias 127 by one exact multiplication, subnormals included
  const u32v finite = (u32v)((f32v)(magnitude << 13) * 0x1p112f);
  const u32v special = (magnitude << 13) | 0x7f800000;
  return (f32v)((magnitude >= 0x7c00 ? special : finite) | ((bits & 0x8000) << 16));
}

// To nearest, ties to even: in the normal range by carrying into the exponent, below it by an addition whose
// last place is that of the smallest subnormal.
FASTLLIE_INLINE u16v narrow_f16(f32v v) {
  const u32v bits = (u32v)v;
  const u32v magnitude = bits & 0x7fffffff;
  const u32v infinity = (bits & 0) + 0x7c00, nan = (bits & 0) + 0x7e00;
  const u32v normal = (magnitude + 0xfff + ((magnitude >> 13) & 1) - (112u << 23)) >> 13;
  const u32v subnormal = (u32v)((f32v)magnitude + 0.5f) - 0x3f000000;
  u32v half = magnitude < 0x38800000 ? subnormal : normal;
  half = magnitude >= 0x477ff000 ? infinity : half;
  half = magnitude > 0x7f800000 ? nan : half;
  return __builtin_convertvector(half | ((bits >> 16) & 0x8000), u16v);
}

// `count` elements that lie `stride` apart become consecutive ones in the arithmetic's type; zeros fill the
// last vector.
template <class T, class S, class Widen>
FASTLLIE_INLINE void pack_as(const S* from, int64_t stride, int64_t count, T* to, const Widen& widen) {
  for (int64_t at = 0; at < count; at += LANES<T>) {
    if (stride == 1 && at + LANES<T> <= count) {
      store(to + at, widen(from + at), false);
      continue;
    }
    S lanes[LANES<T>] = {};
    for (int i = 0; i < LANES<T> && at + i < count; ++i) lanes[i] = from[(at + i) * stride];
    store(to + at, widen(static_cast<const S*>(lanes)), false);
  }
}

template <class T, class S, class Narrow>
FASTLLIE_INLINE void unpack_as(const T* from, S* to, int64_t stride, int64_t count, bool stream,
                               const Narrow& narrow) {
  for (int64_t at = 0; at < count; at += LANES<T>) {
    const auto v = narrow(load<Vector<T>>(from + at));
    if (stride == 1 && at + LANES<T> <= count) {
      store(to + at, v, stream);
      continue;
    }
    S lanes[LANES<T>];
    store(lanes, v, false);
    for (int i = 0; i < LANES<T> && at + i < count; ++i) to[(at + i) * stride] = lanes[i];
  }
}

template <class T>
static void pack(Dtype dtype, const void* from, int64_t offset, int64_t stride, int64_t count, T* to) {
  const auto same = [](const T* p) { return load<Vector<T>>(p); };
  if constexpr (sizeof(T) == 4) {
    const auto* half = static_cast<const uint16_t*>(from) + offset;
    if (dtype == Dtype::bf16)
      return pack_as(half, stride, count, to, [](const uint16_t* p) { return widen_bf16(load<u16v>(p)); });
    if (dtype == Dtype::f16)
      return pack_as(half, stride, count, to, [](const uint16_t* p) { return widen_f16(load<u16v>(p)); });
  }
  pack_as(static_cast<const T*>(from) + offset, stride, count, to, same);
}

template <class T>
static void unpack(const T* from, Dtype dtype, void* to, int64_t offset, int64_t stride, int64_t count,
                   bool stream) {
  if constexpr (sizeof(T) == 4) {
    auto* half = static_cast<uint16_t*>(to) + offset;
    if (dtype == Dtype::bf16)
      return unpack_as(from, half, stride, count, stream, [](f32v v) { return narrow_bf16(v); });
    if (dtype == Dtype::f16)
      return unpack_as(from, half, stride, count, stream, [](f32v v) { return narrow_f16(v); });
  }
  unpack_as(from, static_cast<T*>(to) + offset, stride, count, stream, [](Vector<T> v) { return v; });
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
  const f32v bound = one * 87.0f;
  z = z > bound ? bound : z;
  z = z < -bound ? -bound : z;
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

// 2^-z for z >= 0, with a relative error of 1e-7; 0 where that is no normal number.
FASTLLIE_INLINE f32v exp2_of_minus(f32v z) {
#if defined(FASTLLIE_AVX512)
  const f32v k =
      (f32v)_mm512_maskz_roundscale_ps(0xffff, (__m512)z, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
  z = z > 127.0f ? z * 0.0f + 127.0f : z;
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
  typedef int32_t mask __attribute__((vector_size(64)));
  const mask lanes = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return lanes < int32_t(count) ? v : f32v{};
}
FASTLLIE_INLINE f64v keep(f64v v, int64_t count) {
  typedef int64_t mask __attribute__((vector_size(64)));
  const mask lanes = {0, 1, 2, 3, 4, 5, 6, 7};
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
