// Zero-DCE's layers by Winograd's algorithm, in float32 or pairs of bfloat16. Included once for each
// instruction set, inside that set's namespace, after zerodce_loops.h, convolution_multiply.h and winograd.h.

constexpr int64_t ZERODCE_POINTS = 36;

template <class Feature, class S>
struct ZeroDceWinograd : ZeroDceStrip<Feature> {
  using Strip = ZeroDceStrip<Feature>;
  using Strip::features;
  using Strip::image;
  using Strip::task;
  using typename Strip::F;
  static constexpr int64_t PACKED = sizeof(S) / sizeof(F);

  int64_t tiles;  // of four columns
  F* factors;
  float* sums;

  static int64_t own_of(int64_t tiles) {
    return ZERODCE_POINTS *
           (sums_pitch(tiles) * sizeof(float) + factors_pitch(tiles, 2 * ZERODCE_CHANNELS) * sizeof(F));
  }

  explicit ZeroDceWinograd(const ZeroDceTask& task)
      : Strip(task, Strip::wide_of(task, 2, 4), own_of(Strip::wide_of(task, 2, 4) / 4)),
        tiles(this->wide / 4),
        factors(static_cast<F*>(this->more) +
                ZERODCE_POINTS * sums_pitch(tiles) * (sizeof(float) / sizeof(F))),
        sums(static_cast<float*>(this->more)) {}

  // 64 bytes more, or the points of a tile would fall on the same lines of the first cache
  static int64_t factors_pitch(int64_t tiles, int64_t depth) {
    return rounded_up(tiles, ROW_BLOCK) * depth + 64 / int64_t(sizeof(F));
  }
  static int64_t sums_pitch(int64_t tiles) { return rounded_up(tiles, ROW_BLOCK) * ZERODCE_CHANNELS + 16; }

  void first_layer(int64_t band) const {
    const float* const weights = static_cast<const float*>(task.network.weights[0]);
    const float* const bias = task.network.epilogues[0];
    constexpr int VECTORS = ZERODCE_CHANNELS / LANES<float>;
    alignas(64) float products[PRODUCT_ROWS * OUTPUT_BLOCK];
    const int64_t r = band * ZERODCE_BAND;
    for (int64_t i = 0; i < ZERODCE_BAND; ++i) {
      F* const to = features[1].row(r + i);
      // three rows of the ring need not adjoin: they are added up one after the other
      // two columns more than the layers that follow
      for (int64_t p = 0; p < this->wide + 2; p += PRODUCT_ROWS) {
        const float* const rows[3] = {image.row(r + i) + 3 * p, image.row(r + i + 1) + 3 * p,
                                      image.row(r + i + 2) + 3 * p};
        for (int n = 0; n < VECTORS; n += 2)
          product<2, float>(rows, 3, this->wide + 2 - p, weights + n * LANES<float>, 9,
                            products + n * LANES<float>);
        const int64_t count = smaller(PRODUCT_ROWS, this->wide + 2 - p);
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
    const int64_t offset = l - source - 1, pitch = factors_pitch(tiles, depth);
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
    const int64_t pitch = factors_pitch(tiles, depth);
    const S* const weights = static_cast<const S*>(task.network.weights[l - 1]);
    constexpr int VECTORS = ZERODCE_CHANNELS / LANES<float>;
    for (int point = 0; point < ZERODCE_POINTS; ++point) {
      for (int n = 0; n < VECTORS; n += 2) {
        const S* const w = weights + point * depth / PACKED * OUTPUT_BLOCK + n * LANES<float>;
        for (int64_t tile = 0; tile < tiles; tile += PRODUCT_ROWS) {
          const F* const rows = factors + point * pitch + tile * depth;
          product<2, S>({reinterpret_cast<const S*>(rows)}, depth / PACKED, tiles - tile, w, depth / PACKED,
                        sums + point * sums_pitch(tiles) + tile * OUTPUT_BLOCK + n * LANES<float>);
        }
      }
    }
    if (l < ZERODCE_LAYERS)
      write<Feature, true>(l, [&](int64_t i) { return features[l].row(band * ZERODCE_BAND + i); });
    else
      write<Same<float>, false>(l, [&](int64_t i) { return this->maps_of(i); });
  }

  template <class To, bool RELU, class Row>
  FASTLLIE_INLINE void write_tiles(const ZeroDceWinograd& strip, int l, const Row& row) {
    typename To::Element* rows[4];
    for (int i = 0; i < 4; ++i) rows[i] = row(i);
    for (int c = 0; c < ZERODCE_CHANNELS; c += LANES<float>) {
      const f32v bias = load<f32v>(strip.task.network.epilogues[l - 1] + c);
      for (int64_t tile = 0; tile < strip.tiles; ++tile) {
        f32v y[4][4];
        transform_output<4>(strip.sums + tile * OUTPUT_BLOCK + c, sums_pitch(strip.tiles), y);
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
};

ZeroDceLoop zerodce_loop(bool pairs) {
  return pairs ? run_zerodce<ZeroDceWinograd<QuickBf16, uint32_t>>
               : run_zerodce<ZeroDceWinograd<Same<float>, float>>;
}
