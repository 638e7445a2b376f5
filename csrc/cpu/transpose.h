// Interleaved channels to planes and back, by squares of vectors. Included once for each instruction set,
// inside that set's namespace, after pack.h.

// Of two vectors i and i + B of a square: their blocks of B lanes on and beside the diagonal.
template <int N, int B>
struct Blocks {
  struct First {
    static constexpr int at(int i) { return i & B ? N + i - B : i; }
  };
  struct Second {
    static constexpr int at(int i) { return i & B ? N + i : i + B; }
  };
};

template <int B, class V, int N>
FASTLLIE_INLINE void transpose(V (&v)[N]) {
  constexpr std::make_index_sequence<N> lanes{};
  using Plan = Blocks<N, B>;
#pragma GCC unroll 16
  for (int i = 0; i < N; ++i) {
    if (i & B) continue;
    const V first = shuffle<typename Plan::First>(v[i], v[i + B], lanes);
    v[i + B] = shuffle<typename Plan::Second>(v[i], v[i + B], lanes);
    v[i] = first;
  }
  if constexpr (2 * B < N) transpose<2 * B>(v);
}

// Whether squares of vectors cover the channels of a pixel.
template <class T>
FASTLLIE_INLINE bool has_squares(int64_t channels) {
  return channels >= LANES<T>;
}

// Calls with(first channel, first pixel) for squares that cover all; the last ones of a pixel may overlap.
template <class T, class With>
FASTLLIE_INLINE void each_square(int64_t channels, int64_t pixels, const With& with) {
  for (int64_t p = 0; p < pixels; p += LANES<T>) {
    for (int64_t c = 0; c < channels; c += LANES<T>) {
      with(c + LANES<T> <= channels ? c : channels - LANES<T>, p);
    }
  }
}

// Pixels of `channels` values each become planes that lie `pitch` apart; zeros fill the last vector. Both
// sides have room for whole vectors of pixels.
template <class T>
static void to_planes(const T* from, int64_t channels, int64_t pixels, T* to, int64_t pitch) {
  each_square<T>(channels, pixels, [=](int64_t c, int64_t p) __attribute__((always_inline)) {
    Vector<T> v[LANES<T>];
#pragma GCC unroll 16
    for (int i = 0; i < LANES<T>; ++i) v[i] = load<Vector<T>>(from + (p + i) * channels + c);
    transpose<1>(v);
    if (p + LANES<T> > pixels) {
      for (int i = 0; i < LANES<T>; ++i) v[i] = keep(v[i], pixels - p);
    }
#pragma GCC unroll 16
    for (int i = 0; i < LANES<T>; ++i) store(to + (c + i) * pitch + p, v[i], false);
  });
}

template <class T>
static void from_planes(const T* from, int64_t pitch, int64_t channels, int64_t pixels, T* to) {
  each_square<T>(channels, pixels, [=](int64_t c, int64_t p) __attribute__((always_inline)) {
    Vector<T> v[LANES<T>];
#pragma GCC unroll 16
    for (int i = 0; i < LANES<T>; ++i) v[i] = load<Vector<T>>(from + (c + i) * pitch + p);
    transpose<1>(v);
#pragma GCC unroll 16
    for (int i = 0; i < LANES<T>; ++i) store(to + (p + i) * channels + c, v[i], false);
  });
}
