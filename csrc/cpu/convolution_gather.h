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
#if defined(FASTLLIE_BF16) || defined(FASTLLIE_TILES)
  FASTLLIE_INLINE u16v narrow(f32v v) { return (u16v)_mm512_cvtneps_pbh((__m512)v); }
#endif
};

// Which pixels of the input, which may lie outside of it.
struct Window {
  int64_t b, top, left, rows, columns;
};

// Along one side of a source: the two pixels that an enlarged one lies between, and the second one's share.
struct Between {
  int64_t first = 0, second = 0;
  float share = 0.0f;

  Between() = default;
  Between(int64_t at, int64_t size, bool corners) {
    const float place = corners ? at * (float(size - 1) / float(2 * size - 1)) : at * 0.5f - 0.25f;
    first = place > 0 ? int64_t(place) : 0;
    second = first + 1 < size ? first + 1 : first;
    share = place > 0 ? place - float(first) : 0.0f;
  }
};

// Rows of a source as they come into the input: `channels` of each pixel, from `first` on.
template <class Code, class To>
struct Reader {
  using S = typename Code::Element;
  using T = typename To::Element;
  const Source& source;
  int64_t b, first, channels, pixel_pitch;  // between the pixels of the input

  const S* pixel(int64_t h, int64_t w) const {
    const int64_t* strides = source.view.strides;
    return static_cast<const S*>(source.view.data) + b * strides[0] + h * strides[2] + w * strides[3] + first;
  }

  // What multiplies the pixels of a row; null where nothing does.
  const float* factors(int64_t h) const {
    const int64_t* strides = source.map.strides;
    const float* const data = static_cast<const float*>(source.map.data);
    return data ? data + b * strides[0] + h * strides[2] : nullptr;
  }
  float factor(const float* row, int64_t w) const { return row ? row[w * source.map.strides[3]] : 1.0f; }

  // Few channels as they are.
  template <int CHANNELS>
  void copy_few(const S* from, int64_t count, T* to) const {
    const int64_t stride = source.view.strides[3];
    for (int64_t j = 0; j < count; ++j)
#pragma GCC unroll 4
      for (int c = 0; c < CHANNELS; ++c) to[j * pixel_pitch + c] = from[j * stride + c];
  }
  // Pixels as they are.
  void copy(const S* from, int64_t count, T* to) const {
    const int64_t stride = source.view.strides[3];
    if (stride == channels && pixel_pitch == channels) {
      __builtin_memcpy(to, from, count * channels * sizeof *to);
    } else if (channels % LANES<float> == 0) {
      for (int64_t j = 0; j < count; ++j)
        for (int64_t c = 0; c < channels; c += LANES<float>)
          store(to + j * pixel_pitch + c, load<typename Code::Stored>(from + j * stride + c), false);
    } else if (channels > 4) {
      for (int64_t j = 0; j < count; ++j)
        __builtin_memcpy(to + j * pixel_pitch, from + j * stride, channels * sizeof *to);
    } else {
      channels == 1   ? copy_few<1>(from, count, to)
      : channels == 2 ? copy_few<2>(from, count, to)
      : channels == 3 ? copy_few<3>(from, count, to)
                      : copy_few<4>(from, count, to);
    }
  }

  void same(int64_t h, int64_t left, int64_t right, T* to) const {
    const S* from = pixel(h, left);
    const float* const scales = factors(h);
    if constexpr (std::is_same_v<Code, To>) {
      if (!scales) return copy(from, right - left, to);
    }
    for (int64_t w = left; w < right; ++w, from += source.view.strides[3], to += pixel_pitch) {
      const float scale = factor(scales, w);
      for (int64_t c = 0; c < channels; c += LANES<float>)
        write_some<To>(to + c, read_some<Code>(from + c, channels - c) * scale, channels - c);
    }
  }

  void pooled(int64_t h, int64_t left, int64_t right, T* to) const {
    const int64_t stride = source.view.strides[3];
    const S *upper = pixel(2 * h, 2 * left), *lower = pixel(2 * h + 1, 2 * left);
    const float* const scales = factors(h);
    for (int64_t w = left; w < right; ++w, upper += 2 * stride, lower += 2 * stride, to += pixel_pitch) {
      const float scale = factor(scales, w);
      const S* const p[4] = {upper, upper + stride, lower, lower + stride};
      for (int64_t c = 0; c < channels; c += LANES<float>) {
        f32v v[4];
        for (int i = 0; i < 4; ++i) v[i] = read_some<Code>(p[i] + c, channels - c);
        const f32v most = Bounds::at_least(Bounds::at_least(v[0], v[1]), Bounds::at_least(v[2], v[3]));
        write_some<To>(to + c, most * scale, channels - c);
      }
    }
  }

  // Pixels between those at `places`: down the columns first, which two of them share.
  void between(int64_t h, int64_t left, int64_t right, const Between* places, bool corners, T* to) const {
    const Between y(h, source.height, corners);
    const S *const upper = pixel(y.first, 0), *const lower = pixel(y.second, 0);
    const int64_t stride = source.view.strides[3];
    const float* const scales = factors(h);
    for (int64_t c = 0; c < channels; c += LANES<float>) {
      const int64_t some = channels - c;
      const auto column = [&](int64_t w) __attribute__((always_inline)) {
        const f32v above = read_some<Code>(upper + w * stride + c, some);
        return above + (read_some<Code>(lower + w * stride + c, some) - above) * y.share;
      };
      int64_t at = places[0].first;
      f32v here = column(at), next = column(places[0].second);
      for (int64_t w = left; w < right; ++w) {
        const Between& x = places[w - left];
        if (x.first != at) {
          at = x.first;
          here = next;
          next = column(x.second);
        }
        const f32v v = (here + (next - here) * x.share) * factor(scales, w);
        write_some<To>(to + (w - left) * pixel_pitch + c, v, some);
      }
    }
  }
};

// Channels `first` to `first` + `channels` - 1 of a source, a pixel's `pixel_pitch` apart in `to`.
template <class Code, class To>
static void gather(const Source& source, const Window& window, int64_t first, int64_t channels,
                   typename To::Element* to, int64_t row_pitch, int64_t pixel_pitch) {
  constexpr int64_t MOST = 128;  // columns at a time
  const bool corners = source.sampling == Sampling::stretched;
  const bool enlarged = corners || source.sampling == Sampling::enlarged,
             pooled = source.sampling == Sampling::pooled;
  const auto side = [&](int64_t size) { return enlarged ? 2 * size : pooled ? size / 2 : size; };
  const int64_t height = side(source.height), width = side(source.width);
  const Reader<Code, To> reader{source, window.b, first, channels, pixel_pitch};
  const auto clear = [&](typename To::Element* from, int64_t pixels) {
    if (pixel_pitch == channels) {
      __builtin_memset(from, 0, pixels * channels * sizeof *from);
      return;
    }
    for (int64_t j = 0; j < pixels; ++j) __builtin_memset(from + j * pixel_pitch, 0, channels * sizeof *from);
  };
  for (int64_t start = 0; start < window.columns; start += MOST) {
    const int64_t count = smaller(window.columns - start, MOST), begin = window.left + start;
    // those that lie in the source
    const int64_t left = begin < 0 ? smaller(-begin, count) : 0;
    const int64_t right = begin + count > width ? (begin < width ? width - begin : left) : count;
    Between places[MOST];
    for (int64_t j = left; enlarged && j < right; ++j)
      places[j - left] = Between(begin + j, source.width, corners);
    for (int64_t i = 0; i < window.rows; ++i) {
      typename To::Element* const row = to + i * row_pitch + start * pixel_pitch;
      const int64_t h = window.top + i;
      if (h < 0 || h >= height || left >= right) {
        clear(row, count);
        continue;
      }
      clear(row, left);
      typename To::Element* const inside = row + left * pixel_pitch;
      if (enlarged)
        reader.between(h, begin + left, begin + right, places, corners, inside);
      else if (pooled)
        reader.pooled(h, begin + left, begin + right, inside);
      else
        reader.same(h, begin + left, begin + right, inside);
      clear(row + right * pixel_pitch, count - right);
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
