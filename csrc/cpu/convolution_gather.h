// The input of a block of outputs, put together in scratch memory: sampled, scaled by a map, concatenated,
// padded with zeros. Included once for each instruction set, inside that set's namespace, after pack.h.

// The first `count` lanes from memory that ends there, zeros in the others; and back.
template <class Code>
FASTLLIE_INLINE f32v read_some(const typename Code::Element* from, int64_t count) {
  if (count >= LANES<float>) return Code::widen(load<typename Code::Stored>(from));
#if defined(FASTLLIE_AVX512)
  const auto mask = __mmask16((1u << count) - 1);
  if constexpr (sizeof *from == 4) return Code::widen((f32v)_mm512_maskz_loadu_ps(mask, from));
  if constexpr (sizeof *from == 2) return Code::widen((u16v)_mm256_maskz_loadu_epi16(mask, from));
#endif
  typename Code::Element lanes[LANES<float>] = {};
  for (int i = 0; i < count; ++i) lanes[i] = from[i];
  return Code::widen(load<typename Code::Stored>(lanes));
}
template <class Code>
FASTLLIE_INLINE void write_some(typename Code::Element* to, f32v v, int64_t count) {
  const auto stored = Code::narrow(v);
  if (count >= LANES<float>) return store(to, stored, false);
#if defined(FASTLLIE_AVX512)
  const auto mask = __mmask16((1u << count) - 1);
  if constexpr (sizeof *to == 4) return _mm512_mask_storeu_ps(to, mask, (__m512)stored);
  if constexpr (sizeof *to == 2) return _mm256_mask_storeu_epi16(to, mask, (__m256i)stored);
#endif
  typename Code::Element lanes[LANES<float>];
  store(lanes, stored, false);
  for (int i = 0; i < count; ++i) to[i] = lanes[i];
}

// bfloat16 with the instruction that rounds to it, where there is one: it takes subnormal numbers for zero.
struct QuickBf16 : Bf16 {
#if defined(FASTLLIE_BF16)
  FASTLLIE_INLINE u16v narrow(f32v v) { return (u16v)_mm512_cvtneps_pbh((__m512)v); }
#endif
};

// Which pixels of the input, which may lie outside of it.
struct Window {
  int64_t b, top, left, rows, columns;
};

// Along one side of a source: the two pixels that an enlarged one lies between, and the second one's share.
struct Between {
  int64_t first, second;
  float share;

  Between(int64_t at, int64_t size, bool corners) {
    const float place = corners ? at * (float(size - 1) / float(2 * size - 1)) : at * 0.5f - 0.25f;
    first = place > 0 ? int64_t(place) : 0;
    second = first + 1 < size ? first + 1 : first;
    share = place > 0 ? place - float(first) : 0.0f;
  }
};

template <class Code>
struct Reader {
  using S = typename Code::Element;
  const Source& source;
  int64_t b, first, channels;

  const S* pixel(int64_t h, int64_t w) const {
    const int64_t* strides = source.view.strides;
    return static_cast<const S*>(source.view.data) + b * strides[0] + h * strides[2] + w * strides[3] + first;
  }

  float factor(int64_t h, int64_t w) const {
    const int64_t* strides = source.map.strides;
    return static_cast<const float*>(source.map.data)[b * strides[0] + h * strides[2] + w * strides[3]];
  }

  // What with(c) makes of the channels from c on.
  template <class To, class With>
  FASTLLIE_INLINE void each(int64_t channels, typename To::Element* to, const With& with) {
    for (int64_t c = 0; c < channels; c += LANES<float>) write_some<To>(to + c, with(c), channels - c);
  }

  template <class To>
  FASTLLIE_INLINE void put(const Reader& from, int64_t h, int64_t w, typename To::Element* to) {
    const int64_t channels = from.channels;
    const float scale = from.source.map.data ? from.factor(h, w) : 1.0f;
    switch (from.source.sampling) {
      case Sampling::same: {
        const S* const p = from.pixel(h, w);
        each<To>(channels, to, [&](int64_t c) { return read_some<Code>(p + c, channels - c) * scale; });
        return;
      }
      case Sampling::pooled: {
        const S* const p[4] = {from.pixel(2 * h, 2 * w), from.pixel(2 * h, 2 * w + 1),
                               from.pixel(2 * h + 1, 2 * w), from.pixel(2 * h + 1, 2 * w + 1)};
        each<To>(channels, to, [&](int64_t c) {
          f32v v[4];
          for (int i = 0; i < 4; ++i) v[i] = read_some<Code>(p[i] + c, channels - c);
          return Bounds::at_least(Bounds::at_least(v[0], v[1]), Bounds::at_least(v[2], v[3])) * scale;
        });
        return;
      }
      default: {
        const bool corners = from.source.sampling == Sampling::stretched;
        const Between y(h, from.source.height, corners), x(w, from.source.width, corners);
        const S* const p[4] = {from.pixel(y.first, x.first), from.pixel(y.first, x.second),
                               from.pixel(y.second, x.first), from.pixel(y.second, x.second)};
        const float share[4] = {(1 - y.share) * (1 - x.share) * scale, (1 - y.share) * x.share * scale,
                                y.share * (1 - x.share) * scale, y.share * x.share * scale};
        each<To>(channels, to, [&](int64_t c) {
          f32v sum{};
          for (int i = 0; i < 4; ++i) sum += read_some<Code>(p[i] + c, channels - c) * share[i];
          return sum;
        });
      }
    }
  }
};

// Channels `first` to `first` + `channels` - 1 of a source, a pixel's `pixel_pitch` apart in `to`.
template <class Code, class To>
static void gather(const Source& source, const Window& window, int64_t first, int64_t channels,
                   typename To::Element* to, int64_t row_pitch, int64_t pixel_pitch) {
  int64_t height = source.height, width = source.width;
  if (source.sampling == Sampling::pooled) height /= 2, width /= 2;
  if (source.sampling == Sampling::enlarged || source.sampling == Sampling::stretched)
    height *= 2, width *= 2;
  const Reader<Code> reader{source, window.b, first, channels};
  const auto zero = [&](typename To::Element* pixel) __attribute__((always_inline)) {
    __builtin_memset(pixel, 0, channels * sizeof *pixel);
  };
  for (int64_t i = 0; i < window.rows; ++i) {
    typename To::Element* const row = to + i * row_pitch;
    const int64_t h = window.top + i;
    const bool outside = h < 0 || h >= height;
    for (int64_t j = 0; j < window.columns; ++j) {
      const int64_t w = window.left + j;
      if (outside || w < 0 || w >= width)
        zero(row + j * pixel_pitch);
      else
        Reader<Code>::template put<To>(reader, h, w, row + j * pixel_pitch);
    }
  }
}

template <class To>
static void gather_any(const Source& source, const Window& window, int64_t first, int64_t channels,
                       typename To::Element* to, int64_t row_pitch, int64_t pixel_pitch) {
  if (source.view.dtype == Dtype::bf16)
    gather<QuickBf16, To>(source, window, first, channels, to, row_pitch, pixel_pitch);
  else
    gather<Same<float>, To>(source, window, first, channels, to, row_pitch, pixel_pitch);
}

// Whether a window can be read from the source itself, by whole vectors of channels.
FASTLLIE_INLINE bool readable_in_place(const Source& source, const Window& window) {
  return source.sampling == Sampling::same && !source.map.data && source.channels % LANES<float> == 0 &&
         window.top >= 0 && window.left >= 0 && window.top + window.rows <= source.height &&
         window.left + window.columns <= source.width;
}
