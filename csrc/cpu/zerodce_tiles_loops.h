// Zero-DCE's layers by tiles of bfloat16. Included inside the namespace of AMX's instruction set, after
// zerodce_loops.h and convolution_tiles.h.

struct ZeroDceTiles : ZeroDceStrip<QuickBf16> {
  using Strip = ZeroDceStrip<QuickBf16>;
  static constexpr int64_t SEEN = 4;  // red, green, blue and nothing: whole pairs

  ZeroDceRing<uint16_t> seen;

  static int64_t wide_of(const ZeroDceTask& task) { return Strip::wide_of(task, 1, TILE); }
  // What the image is as it is multiplied: room for whole vectors.
  static int64_t pitch_of(int64_t wide) { return rounded_up(wide + 8, LANES<float>) * SEEN; }
  static int64_t own_of(int64_t wide) {
    return ZERODCE_KEPT[0] * ZERODCE_BAND * pitch_of(wide) * int64_t(sizeof(uint16_t));
  }

  explicit ZeroDceTiles(const ZeroDceTask& task)
      : Strip(task, wide_of(task), own_of(wide_of(task))),
        seen{static_cast<uint16_t*>(more), ZERODCE_KEPT[0] * ZERODCE_BAND, pitch_of(wide)} {}
  // The system would otherwise keep the tiles for the thread.
  ~ZeroDceTiles() { _tile_release(); }

  void read(int64_t band) const {
    Strip::read(band);
    constexpr int LANE = LANES<float>;
    int32_t firsts __attribute__((vector_size(64))), seconds __attribute__((vector_size(64)));
    for (int i = 0; i < LANE; ++i) {
      firsts[i] = i / 2 + i % 2 * LANE;
      seconds[i] = firsts[i] + LANE / 2;
    }
    for (int64_t r = band * ZERODCE_BAND; r < (band + 1) * ZERODCE_BAND; ++r) {
      const float* from = image.row(r);
      uint16_t* to = seen.row(r);
      for (int64_t at = 0; at < columns; at += LANE, from += 3 * LANE, to += SEEN * LANE) {
        const f32v triples[] = {load<f32v>(from), load<f32v>(from + LANE), load<f32v>(from + 2 * LANE)};
        const u32v two = tile_pair(from_triples<LANE, 0>(triples), from_triples<LANE, 1>(triples));
        const u32v one = tile_pair(from_triples<LANE, 2>(triples), f32v{});
        store(to, (u32v)_mm512_permutex2var_epi32((__m512i)two, (__m512i)firsts, (__m512i)one), false);
        store(to + SEEN * LANE / 2,
              (u32v)_mm512_permutex2var_epi32((__m512i)two, (__m512i)seconds, (__m512i)one), false);
      }
    }
  }

  void first_layer(int64_t band) const {
    constexpr int64_t DEPTH = 3 * SEEN;
    tile_shapes(DEPTH / 2);
    make<3>(1, band, SEEN, 1, DEPTH, [&](int64_t i, int64_t column, int row) {
      return seen.row(band * ZERODCE_BAND + i + row) + column * SEEN;
    });
    tile_shapes(ZERODCE_CHANNELS / 2);
  }

  void layer(int l, int64_t band) const { l >= 5 ? layer_of<2>(l, band) : layer_of<1>(l, band); }

  // A layer that reads the features of so many others.
  template <int SOURCES>
  void layer_of(int l, int64_t band) const {
    const int sources[] = {SOURCES == 2 ? ZERODCE_SKIPS[l - 5] : l - 1, l - 1};
    make<3 * SOURCES>(l, band, ZERODCE_CHANNELS, 3, ZERODCE_CHANNELS,
                      [&](int64_t i, int64_t column, int row) {
                        const int source = sources[row / 3];
                        const int64_t offset = l - source - 1;
                        return features[source].row(band * ZERODCE_BAND + offset + i + row % 3) +
                               (offset + column) * ZERODCE_CHANNELS;
                      });
  }

  // Two tiles of pixels at a time, each of a row of the band; start(i, column, row) is where their inputs
  // are.
  template <int ROWS, class Start>
  FASTLLIE_INLINE void make_tiles(const ZeroDceTiles& strip, int l, int64_t band, int64_t pitch,
                                  int64_t parts_of, int64_t depth, const Start& start) {
    const auto* const weights = static_cast<const uint16_t*>(strip.task.network.weights[l - 1]);
    const int64_t across = parts(strip.right - strip.left + 2 * strip.margin_of(l), TILE);
    alignas(64) float sums[2][2 * TILE * OUTPUT_BLOCK];
    int turn = 0;
    for (int64_t tile = 0; tile < ZERODCE_BAND * across; tile += 2, turn ^= 1) {
      const uint16_t* starts[2][ROWS];
      for (int k = 0; k < 2; ++k)
        for (int row = 0; row < ROWS; ++row)
          starts[k][row] = start((tile + k) / across, (tile + k) % across * TILE, row);
      tile_products<2, ROWS>(starts, pitch, parts_of, depth, weights, sums[turn]);
      // the two tiles before go on while these are multiplied
      if (tile) write_tiles(strip, l, band, tile - 2, across, sums[turn ^ 1]);
    }
    write_tiles(strip, l, band, ZERODCE_BAND * across - 2, across, sums[turn ^ 1]);
  }
  template <int ROWS, class Start>
  void make(int l, int64_t band, int64_t pitch, int64_t parts_of, int64_t depth, const Start& start) const {
    make_tiles<ROWS>(*this, l, band, pitch, parts_of, depth, start);
  }

  FASTLLIE_INLINE void write_tile(const ZeroDceTiles& strip, int l, int64_t i, int64_t band, int64_t column,
                                  const float* sums) {
    constexpr int64_t LANE = LANES<float>;
    const float* const biases = strip.task.network.epilogues[l - 1];
    const f32v bias[] = {load<f32v>(biases), load<f32v>(biases + LANE)};
    if (l == ZERODCE_LAYERS) {
      float* const to = strip.maps_of(i) + column * ZERODCE_CHANNELS;
#pragma GCC unroll 16
      for (int pixel = 0; pixel < TILE; ++pixel)
        for (int n = 0; n < 2; ++n)
          store(to + pixel * ZERODCE_CHANNELS + n * LANE,
                load<f32v>(sums + pixel * OUTPUT_BLOCK + n * LANE) + bias[n], false);
      return;
    }
    uint16_t* const to = strip.features[l].row(band * ZERODCE_BAND + i) + column * ZERODCE_CHANNELS;
#pragma GCC unroll 16
    for (int pixel = 0; pixel < TILE; ++pixel) {
      f32v v[2];
      for (int n = 0; n < 2; ++n)
        v[n] = Bounds::at_least(load<f32v>(sums + pixel * OUTPUT_BLOCK + n * LANE) + bias[n], f32v{});
      store(to + pixel * ZERODCE_CHANNELS, (u32v)_mm512_cvtne2ps_pbh((__m512)v[1], (__m512)v[0]), false);
    }
  }

  FASTLLIE_INLINE void write_tiles(const ZeroDceTiles& strip, int l, int64_t band, int64_t tile,
                                   int64_t across, const float* sums) {
    for (int k = 0; k < 2; ++k)
      write_tile(strip, l, (tile + k) / across, band, (tile + k) % across * TILE,
                 sums + k * TILE * OUTPUT_BLOCK);
  }
};

ZeroDceLoop zerodce_tiles_loop() { return run_zerodce<ZeroDceTiles>; }
