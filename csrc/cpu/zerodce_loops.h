// The loops of Zero-DCE's network. Included once for each instruction set, inside that set's namespace, after
// convolution_loops.h and transpose.h.
//
// Down a strip of columns each layer follows one band of four rows behind the one before it, and of every
// layer only the bands that others still read are kept. Layer l computes 7 - l pixels more on each side than
// the last one, so that its row and column i are made of rows and columns i to i + 2 of the layer before.

constexpr int ZERODCE_LAYERS = 7, ZERODCE_CHANNELS = 32, ZERODCE_MAPS = 24;
constexpr int64_t ZERODCE_BAND = 4, ZERODCE_POINTS = 36;
// Bands kept of the image and of layers 1 to 6; the first three are read again as skips
constexpr int64_t ZERODCE_KEPT[] = {2, 6, 5, 3, 2, 2, 2};
// What layers 5 to 7 read before the layer that precedes them
constexpr int ZERODCE_SKIPS[] = {3, 2, 1};

// Bands of rows of one layer; those that are not kept are overwritten.
template <class S>
struct ZeroDceRing {
  S* start;
  int64_t rows, pitch;

  S* row(int64_t r) const { return start + r % rows * pitch; }
};

template <class Feature, class S>
struct ZeroDceStrip {
  using F = typename Feature::Element;
  static constexpr int64_t PACKED = sizeof(S) / sizeof(F);

  const ZeroDceTask& task;
  int64_t tiles, columns;  // columns of four times as many pixels, and of those that fill the last tile up
  ZeroDceRing<float> image;
  ZeroDceRing<F> features[ZERODCE_LAYERS];  // of layers 1 to 6
  F* factors;
  float *sums, *maps, *planes;
  int64_t b, top, bottom, left, right;

  static int64_t tiles_of(const ZeroDceTask& task) {
    return (task.strip_columns + 2 * (ZERODCE_LAYERS - 2) + 3) / 4;
  }

  explicit ZeroDceStrip(const ZeroDceTask& task) : task(task), tiles(tiles_of(task)), columns(4 * tiles + 8) {
    const int64_t padded = rounded_up(tiles, ROW_BLOCK);
    int64_t floats = ZERODCE_KEPT[0] * ZERODCE_BAND * columns * 3 + ZERODCE_POINTS * sums_pitch() +
                     ZERODCE_BAND * 4 * padded * ZERODCE_CHANNELS + (ZERODCE_CHANNELS + 3) * planes_pitch();
    int64_t stored = ZERODCE_POINTS * factors_pitch(2 * ZERODCE_CHANNELS);
    for (int l = 1; l < ZERODCE_LAYERS; ++l)
      stored += ZERODCE_KEPT[l] * ZERODCE_BAND * columns * ZERODCE_CHANNELS;
    floats = rounded_up(floats + ROW_BLOCK * 3 + LANES<float>, 16);
    const int64_t bytes = floats * sizeof(float) + stored * sizeof(F);
    float* next = static_cast<float*>(scratch(bytes));
    // what fills up tiles, products and windows at the right end
    __builtin_memset(next, 0, bytes);
    F* feature = reinterpret_cast<F*>(next + floats);
    sums = next;
    next += ZERODCE_POINTS * sums_pitch();
    maps = next;
    next += ZERODCE_BAND * 4 * padded * ZERODCE_CHANNELS;
    planes = next;
    next += (ZERODCE_CHANNELS + 3) * planes_pitch();
    image = {next, ZERODCE_KEPT[0] * ZERODCE_BAND, columns * 3};
    factors = feature;
    feature += ZERODCE_POINTS * factors_pitch(2 * ZERODCE_CHANNELS);
    for (int l = 1; l < ZERODCE_LAYERS; ++l) {
      features[l] = {feature, ZERODCE_KEPT[l] * ZERODCE_BAND, columns * ZERODCE_CHANNELS};
      feature += ZERODCE_KEPT[l] * ZERODCE_BAND * columns * ZERODCE_CHANNELS;
    }
  }

  // 64 bytes more, or the points of a tile would fall on the same lines of the first cache
  int64_t factors_pitch(int64_t depth) const {
    return rounded_up(tiles, ROW_BLOCK) * depth + 64 / int64_t(sizeof(F));
  }
  int64_t sums_pitch() const { return rounded_up(tiles, ROW_BLOCK) * ZERODCE_CHANNELS + 16; }
  int64_t planes_pitch() const { return rounded_up(4 * tiles, LANES<float>); }

  // Rows that layer l computes; the image is layer 0.
  int64_t rows_of(int l) const { return bottom - top + 2 * (ZERODCE_LAYERS - l); }
  int64_t margin_of(int l) const { return ZERODCE_LAYERS - l; }

  // Whether a row or column of a layer that pads with zeros lies outside of the image.
  bool outside(int64_t at, int64_t size) const { return task.network.zeros && (at < 0 || at >= size); }

  void read(int64_t band) const {
    const ZeroDce& network = task.network;
    const int64_t height = network.sizes[2], width = network.sizes[3], around = network.around;
    const View& x = network.x;
    for (int64_t i = 0; i < ZERODCE_BAND; ++i) {
      float* const row = image.row(band * ZERODCE_BAND + i);
      const int64_t h = top - ZERODCE_LAYERS + band * ZERODCE_BAND + i, first = left - ZERODCE_LAYERS;
      const int64_t count = right - left + 2 * ZERODCE_LAYERS;
      // beyond a last strip that is narrower, too: what fills its tiles up may not depend on other strips
      __builtin_memset(row + count * 3, 0, (columns - count) * 3 * sizeof(float));
      if (outside(h, height)) {
        __builtin_memset(row, 0, count * 3 * sizeof(float));
        continue;
      }
      const int64_t from = clamped(h, -around, height - 1 + around) * x.strides[2] + b * x.strides[0];
      with_storage<float>(x.dtype, [&](auto code) {
        using Code = decltype(code);
        const auto* const source = static_cast<const typename Code::Element*>(x.data) + from;
        for (int64_t j = 0; j < count; ++j) {
          const int64_t w = clamped(first + j, -around, width - 1 + around);
          typename Code::Element lanes[LANES<float>] = {};
          for (int c = 0; c < 3; ++c) lanes[c] = source[w * x.strides[3] + c * x.strides[1]];
          const f32v v = Code::widen(load<typename Code::Stored>(lanes));
          const float some = outside(first + j, width) ? 0.0f : 1.0f;
          for (int c = 0; c < 3; ++c) row[3 * j + c] = v[c] * some;
        }
      });
    }
  }

  FASTLLIE_INLINE int64_t clamped(int64_t at, int64_t low, int64_t high) {
    return at < low ? low : at > high ? high : at;
  }

  void first_layer(int64_t band) const {
    const float* const weights = static_cast<const float*>(task.network.weights[0]);
    const float* const bias = task.network.epilogues[0];
    constexpr int VECTORS = ZERODCE_CHANNELS / LANES<float>;
    alignas(64) float products[PRODUCT_ROWS * OUTPUT_BLOCK];
    const int64_t r = band * ZERODCE_BAND;
    for (int64_t i = 0; i < ZERODCE_BAND; ++i) {
      F* const to = features[1].row(r + i);
      // three rows of the ring need not adjoin: they are added up one after the other
      // two columns more than the tiles of the layers that follow
      for (int64_t p = 0; p < 4 * tiles + 2; p += PRODUCT_ROWS) {
        const float* const rows[3] = {image.row(r + i) + 3 * p, image.row(r + i + 1) + 3 * p,
                                      image.row(r + i + 2) + 3 * p};
        for (int n = 0; n < VECTORS; n += 2)
          product<2, float>(rows, 3, 4 * tiles + 2 - p, weights + n * LANES<float>, 9,
                            products + n * LANES<float>);
        const int64_t count = smaller(PRODUCT_ROWS, 4 * tiles + 2 - p);
        for (int64_t k = 0; k < count; ++k) {
          for (int n = 0; n < VECTORS; ++n) {
            const f32v v = load<f32v>(products + k * OUTPUT_BLOCK + n * LANES<float>) +
                           load<f32v>(bias + n * LANES<float>);
            store(to + (p + k) * ZERODCE_CHANNELS + n * LANES<float>,
                  Feature::narrow(Bounds::at_least(v, f32v{})), false);
          }
        }
      }
    }
  }

  // The factors of one source of layer l, whose channels are the first or the second 32 of `depth`.
  void transform(int l, int64_t band, int source, int64_t depth, int64_t channel) const {
    const int64_t offset = l - source - 1, pitch = factors_pitch(depth);
    const F* rows[6];
    for (int i = 0; i < 6; ++i)
      rows[i] = features[source].row(band * ZERODCE_BAND + offset + i) + offset * ZERODCE_CHANNELS;
    for (int64_t tile = 0; tile < tiles; ++tile) {
      for (int c = 0; c < ZERODCE_CHANNELS; c += LANES<float>) {
        transform_input<4, Feature, Feature>(rows, 4 * tile * ZERODCE_CHANNELS + c, ZERODCE_CHANNELS,
                                             factors + tile * depth + channel + c, pitch);
      }
    }
  }

  void layer(int l, int64_t band) const {
    int64_t depth = ZERODCE_CHANNELS;
    if (l >= 5) {
      depth = 2 * ZERODCE_CHANNELS;
      transform(l, band, ZERODCE_SKIPS[l - 5], depth, 0);
    }
    transform(l, band, l - 1, depth, depth - ZERODCE_CHANNELS);
    const int64_t pitch = factors_pitch(depth);
    const S* const weights = static_cast<const S*>(task.network.weights[l - 1]);
    constexpr int VECTORS = ZERODCE_CHANNELS / LANES<float>;
    for (int point = 0; point < ZERODCE_POINTS; ++point) {
      for (int n = 0; n < VECTORS; n += 2) {
        const S* const w = weights + point * depth / PACKED * OUTPUT_BLOCK + n * LANES<float>;
        for (int64_t tile = 0; tile < tiles; tile += PRODUCT_ROWS) {
          const F* const rows = factors + point * pitch + tile * depth;
          product<2, S>({reinterpret_cast<const S*>(rows)}, depth / PACKED, tiles - tile, w, depth / PACKED,
                        sums + point * sums_pitch() + tile * OUTPUT_BLOCK + n * LANES<float>);
        }
      }
    }
    if (l < ZERODCE_LAYERS)
      write<Feature, true>(l, [&](int64_t i) { return features[l].row(band * ZERODCE_BAND + i); });
    else
      write<Same<float>, false>(l, [&](int64_t i) { return maps + i * 4 * tiles * ZERODCE_CHANNELS; });
  }

  template <class To, bool RELU, class Row>
  FASTLLIE_INLINE void write_tiles(const ZeroDceStrip& strip, int l, const Row& row) {
    typename To::Element* rows[4];
    for (int i = 0; i < 4; ++i) rows[i] = row(i);
    for (int c = 0; c < ZERODCE_CHANNELS; c += LANES<float>) {
      const f32v bias = load<f32v>(strip.task.network.epilogues[l - 1] + c);
      for (int64_t tile = 0; tile < strip.tiles; ++tile) {
        f32v y[4][4];
        transform_output<4>(strip.sums + tile * OUTPUT_BLOCK + c, strip.sums_pitch(), y);
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
#pragma GCC unroll 4
          for (int j = 0; j < 4; ++j) {
            f32v v = y[i][j] + bias;
            if (RELU) v = Bounds::at_least(v, f32v{});
            store(rows[i] + (4 * tile + j) * ZERODCE_CHANNELS + c, To::narrow(v), false);
          }
        }
      }
    }
  }
  template <class To, bool RELU, class Row>
  void write(int l, const Row& row) const {
    write_tiles<To, RELU>(*this, l, row);
  }

  // Rows and columns outside of the image, where each layer pads with zeros.
  void pad(int l, int64_t band) const {
    const int64_t height = task.network.sizes[2], width = task.network.sizes[3];
    const int64_t first = left - margin_of(l), end = right + margin_of(l);
    for (int64_t i = 0; i < ZERODCE_BAND; ++i) {
      F* const row = features[l].row(band * ZERODCE_BAND + i);
      const auto clear = [&](int64_t from, int64_t to) {
        if (from < to)
          __builtin_memset(row + from * ZERODCE_CHANNELS, 0, (to - from) * ZERODCE_CHANNELS * sizeof(F));
      };
      if (outside(top - margin_of(l) + band * ZERODCE_BAND + i, height)) {
        clear(0, columns);
        continue;
      }
      clear(0, first < 0 ? -first : 0);
      if (end > width) clear(width - first, columns);
    }
  }

  void curve(int64_t band) const {
    const ZeroDce& network = task.network;
    const int64_t count = right - left, pitch = planes_pitch();
    const f32v one = broadcast<f32v>(1.0f);
    float* x[3];
    for (int c = 0; c < 3; ++c) x[c] = planes + (ZERODCE_CHANNELS + c) * pitch;
    for (int64_t i = 0; i < ZERODCE_BAND && top + band * ZERODCE_BAND + i < bottom; ++i) {
      const int64_t h = top + band * ZERODCE_BAND + i;
      const auto offset = [&](const View& v) {
        return b * v.strides[0] + h * v.strides[2] + left * v.strides[3];
      };
      to_planes<float>(maps + i * 4 * tiles * ZERODCE_CHANNELS, ZERODCE_CHANNELS, count, planes, pitch);
      pack_rgb(network.x, offset(network.x), count, x);
      for (int64_t at = 0; at < count; at += LANES<float>) {
        for (int c = 0; c < 3; ++c) {
          f32v v = load<f32v>(x[c] + at);
          for (int step = 0; step < ZERODCE_MAPS; step += 3)
            v = curve_step(v, tanh_of(load<f32v>(planes + (step + c) * pitch + at), one));
          store(x[c] + at, v, false);
        }
      }
      unpack_rgb(x, network.out, offset(network.out), count, false);
    }
  }

  void run() const {
    const int64_t last = (bottom - top + ZERODCE_BAND - 1) / ZERODCE_BAND;
    for (int64_t step = -1; step < last + ZERODCE_LAYERS - 1; ++step) {
      read(step + 1);
      for (int l = 1; l <= ZERODCE_LAYERS; ++l) {
        const int64_t band = step - (l - 1);
        if (band < 0 || band >= last + ZERODCE_LAYERS - l) continue;
        if (l == ZERODCE_LAYERS) {
          layer(l, band);
          curve(band);
        } else if (band * ZERODCE_BAND >= rows_of(l)) {
          // the next layer's last tiles reach below what anybody wants
          for (int64_t i = 0; i < ZERODCE_BAND; ++i)
            __builtin_memset(features[l].row(band * ZERODCE_BAND + i), 0,
                             columns * ZERODCE_CHANNELS * sizeof(F));
        } else {
          l == 1 ? first_layer(band) : layer(l, band);
          if (task.network.zeros) pad(l, band);
        }
      }
    }
  }
};

template <class Feature, class S>
static void run_zerodce(const ZeroDceTask& task, int64_t from, int64_t to) {
  const auto& [batch, channels, height, width] = task.network.sizes;
  ZeroDceStrip<Feature, S> strip(task);
  for (int64_t unit = from; unit < to; ++unit) {
    const int64_t band = unit / task.strips % task.bands;
    strip.b = unit / (task.strips * task.bands);
    strip.top = band * task.band_rows;
    strip.bottom = smaller(strip.top + task.band_rows, height);
    strip.left = unit % task.strips * task.strip_columns;
    strip.right = smaller(strip.left + task.strip_columns, width);
    strip.run();
  }
}

ZeroDceLoop zerodce_loop(bool pairs) {
  return pairs ? run_zerodce<QuickBf16, uint32_t> : run_zerodce<Same<float>, float>;
}
