// How each storage type is read into vectors of the arithmetic's type and written back. Included once for
// each instruction set, inside that set's namespace, after simd.h.

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

// Bytes to integers and back; GCC would convert them lane after lane.
FASTLLIE_INLINE i32v widen_bytes(u8v stored) {
#if defined(FASTLLIE_AVX512)
  return (i32v)_mm512_maskz_cvtepu8_epi32(0xffff, (__m128i)stored);
#elif defined(FASTLLIE_AVX2)
  long long bits;
  __builtin_memcpy(&bits, &stored, sizeof stored);
  return (i32v)_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(bits));
#elif defined(__SSE2__)
  int bits;
  __builtin_memcpy(&bits, &stored, sizeof stored);
  const __m128i zero = _mm_setzero_si128();
  return (i32v)_mm_unpacklo_epi16(_mm_unpacklo_epi8(_mm_cvtsi32_si128(bits), zero), zero);
#else
  return __builtin_convertvector(stored, i32v);
#endif
}
FASTLLIE_INLINE u8v narrow_bytes(i32v v) {
#if defined(FASTLLIE_AVX512)
  return (u8v)_mm512_maskz_cvtepi32_epi8(0xffff, (__m512i)v);
#elif defined(FASTLLIE_AVX2)
  const __m256i all = (__m256i)v;
  const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
  const long long bits = _mm_cvtsi128_si64(_mm_packus_epi16(words, words));
  return load<u8v>(&bits);
#elif defined(__SSE2__)
  const __m128i words = _mm_packs_epi32((__m128i)v, (__m128i)v);
  const int bits = _mm_cvtsi128_si32(_mm_packus_epi16(words, words));
  return load<u8v>(&bits);
#else
  return __builtin_convertvector(v, u8v);
#endif
}

// 0 to 255 become 0 to 1, and back to nearest, ties to even.
FASTLLIE_INLINE f32v widen_u8(u8v stored) {
  return __builtin_convertvector(widen_bytes(stored), f32v) * (1.0f / 255);
}
FASTLLIE_INLINE u8v narrow_u8(f32v v) {
  // adding 2^23 leaves the nearest integer in the low bits
  return narrow_bytes((i32v)(v * 255.0f + 8388608.0f) & 0xff);
}

// How each type is stored, a vector of the arithmetic's lanes at a time.
template <class T>
struct Same {
  using Element = T;
  using Stored = Vector<T>;
  FASTLLIE_INLINE Vector<T> widen(Stored v) { return v; }
  FASTLLIE_INLINE Stored narrow(Vector<T> v) { return v; }
};
struct Bf16 {
  using Element = uint16_t;
  using Stored = u16v;
  FASTLLIE_INLINE f32v widen(Stored v) { return widen_bf16(v); }
  FASTLLIE_INLINE Stored narrow(f32v v) { return narrow_bf16(v); }
};
struct F16 {
  using Element = uint16_t;
  using Stored = u16v;
  FASTLLIE_INLINE f32v widen(Stored v) { return widen_f16(v); }
  FASTLLIE_INLINE Stored narrow(f32v v) { return narrow_f16(v); }
};
struct U8 {
  using Element = uint8_t;
  using Stored = u8v;
  FASTLLIE_INLINE f32v widen(Stored v) { return widen_u8(v); }
  FASTLLIE_INLINE Stored narrow(f32v v) { return narrow_u8(v); }
};

// Calls with(code) with the storage of `dtype` for arithmetic in T.
template <class T, class With>
FASTLLIE_INLINE void with_storage(Dtype dtype, const With& with) {
  if constexpr (sizeof(T) == 4) {
    if (dtype == Dtype::bf16) return with(Bf16{});
    if (dtype == Dtype::f16) return with(F16{});
    if (dtype == Dtype::u8) return with(U8{});
  }
  with(Same<T>{});
}

// `count` elements that lie `stride` apart become consecutive ones in the arithmetic's type; zeros fill the
// last vector.
template <class T>
static void pack(Dtype dtype, const void* data, int64_t offset, int64_t stride, int64_t count, T* to) {
  with_storage<T>(dtype, [=](auto code) {
    using Code = decltype(code);
    using S = typename Code::Element;
    const S* from = static_cast<const S*>(data) + offset;
    for (int64_t at = 0; at < count; at += LANES<T>) {
      if (stride == 1 && at + LANES<T> <= count) {
        store(to + at, Code::widen(load<typename Code::Stored>(from + at)), false);
        continue;
      }
      S lanes[LANES<T>] = {};
      for (int i = 0; i < LANES<T> && at + i < count; ++i) lanes[i] = from[(at + i) * stride];
      store(to + at, Code::widen(load<typename Code::Stored>(lanes)), false);
    }
  });
}

template <class T>
static void unpack(const T* from, Dtype dtype, void* data, int64_t offset, int64_t stride, int64_t count,
                   bool stream) {
  with_storage<T>(dtype, [=](auto code) {
    using Code = decltype(code);
    using S = typename Code::Element;
    S* to = static_cast<S*>(data) + offset;
    for (int64_t at = 0; at < count; at += LANES<T>) {
      const auto v = Code::narrow(load<Vector<T>>(from + at));
      if (stride == 1 && at + LANES<T> <= count) {
        store(to + at, v, stream);
        continue;
      }
      S lanes[LANES<T>];
      store(lanes, v, false);
      for (int i = 0; i < LANES<T> && at + i < count; ++i) to[(at + i) * stride] = lanes[i];
    }
  });
}

// Lane i of the result is lane Lane::at(i) of the two vectors side by side.
template <class Lane, class V, size_t... I>
FASTLLIE_INLINE V shuffle(V low, V high, std::index_sequence<I...>) {
#if defined(__clang__)
  return __builtin_shufflevector(low, high, Lane::at(I)...);
#else
  using Mask = decltype(low == high);
  return __builtin_shuffle(low, high, Mask{Lane::at(I)...});
#endif
}

// Three vectors that hold triples C C C C ... become one vector of each member C, in two shuffles: the
// members in the first two vectors, then those in the third.
template <int N, int C>
struct FromTriples {
  struct Two {
    static constexpr int at(int i) { return 3 * i + C < 2 * N ? 3 * i + C : 0; }
  };
  struct Third {
    static constexpr int at(int i) { return 3 * i + C < 2 * N ? i : 3 * i + C - N; }
  };
};
// And back: vector K of the three, of the members 0 and 1, then of 2.
template <int N, int K>
struct ToTriples {
  struct Two {
    static constexpr int at(int i) { return (K * N + i) / 3 + ((K * N + i) % 3 == 1 ? N : 0); }
  };
  struct Third {
    static constexpr int at(int i) { return (K * N + i) % 3 == 2 ? N + (K * N + i) / 3 : i; }
  };
};

template <int N, int C, class V>
FASTLLIE_INLINE V from_triples(const V* v) {
  constexpr std::make_index_sequence<N> lanes{};
  using Plan = FromTriples<N, C>;
  return shuffle<typename Plan::Third>(shuffle<typename Plan::Two>(v[0], v[1], lanes), v[2], lanes);
}

template <int N, int K, class V>
FASTLLIE_INLINE V to_triples(const V* v) {
  constexpr std::make_index_sequence<N> lanes{};
  using Plan = ToTriples<N, K>;
  return shuffle<typename Plan::Third>(shuffle<typename Plan::Two>(v[0], v[1], lanes), v[2], lanes);
}

// Whether the three channels of a pixel lie side by side, and the next pixel after them.
FASTLLIE_INLINE bool interleaved(const View& v) { return v.strides[1] == 1 && v.strides[3] == 3; }

// `pack` and `unpack` for three channels from the pixel at `offset`.
template <class T>
static void pack_rgb(const View& v, int64_t offset, int64_t count, T* const* to) {
  if (!interleaved(v)) {
    for (int c = 0; c < 3; ++c) pack(v.dtype, v.data, offset + c * v.strides[1], v.strides[3], count, to[c]);
    return;
  }
  with_storage<T>(v.dtype, [=](auto code) {
    using Code = decltype(code);
    using S = typename Code::Element;
    constexpr int N = LANES<T>;
    const S* const from = static_cast<const S*>(v.data) + offset;
    for (int64_t at = 0; at < count; at += N) {
      typename Code::Stored triples[3] = {};
      const int64_t some = count - at < N ? count - at : N;
      if (some == N) {
        __builtin_memcpy(triples, from + 3 * at, sizeof triples);
      } else {
        __builtin_memcpy(triples, from + 3 * at, 3 * some * sizeof(S));
      }
      store(to[0] + at, Code::widen(from_triples<N, 0>(triples)), false);
      store(to[1] + at, Code::widen(from_triples<N, 1>(triples)), false);
      store(to[2] + at, Code::widen(from_triples<N, 2>(triples)), false);
    }
  });
}

template <class T>
static void unpack_rgb(const T* const* from, const View& v, int64_t offset, int64_t count, bool stream) {
  if (!interleaved(v)) {
    for (int c = 0; c < 3; ++c)
      unpack(from[c], v.dtype, v.data, offset + c * v.strides[1], v.strides[3], count, stream);
    return;
  }
  with_storage<T>(v.dtype, [=](auto code) {
    using Code = decltype(code);
    using S = typename Code::Element;
    constexpr int N = LANES<T>;
    S* const to = static_cast<S*>(v.data) + offset;
    for (int64_t at = 0; at < count; at += N) {
      typename Code::Stored planes[3], triples[3];
      for (int c = 0; c < 3; ++c) planes[c] = Code::narrow(load<Vector<T>>(from[c] + at));
      triples[0] = to_triples<N, 0>(planes);
      triples[1] = to_triples<N, 1>(planes);
      triples[2] = to_triples<N, 2>(planes);
      const int64_t some = count - at < N ? count - at : N;
      if (some == N) {
        for (int k = 0; k < 3; ++k) store(to + 3 * at + k * N, triples[k], stream);
      } else {
        __builtin_memcpy(to + 3 * at, triples, 3 * some * sizeof(S));
      }
    }
  });
}
