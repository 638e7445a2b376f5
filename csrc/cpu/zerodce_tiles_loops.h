// Zero-DCE's layers by tiles of bfloat16. Included inside the namespace of AMX's instruction set, after
// zerodce_loops.h and convolution_tiles.h.

struct ZeroDceTiles : ZeroDceStrip<QuickBf16> {
  using Strip = ZeroDceStrip<QuickBf16>;

  explicit ZeroDceTiles(const ZeroDceTask& task) : Strip(task, Strip::wide_of(task, TILE), 0) {
    tile_shapes(ZERODCE_CHANNELS / 2);
  }
  // The system would otherwise keep the tiles for the thread.
  ~ZeroDceTiles() { _tile_release(); }

  void layer(int l, int64_t band) const { l >= 5 ? layer_of<2>(l, band) : layer_of<1>(l, band); }

  // A layer that reads the features of so many others.
  template <int SOURCES>
  void layer_of(int l, int64_t band) const {
    constexpr int ROWS = 3 * SOURCES, CHANNELS = ZERODCE_CHANNELS;
    const int sources[] = {SOURCES == 2 ? ZERODCE_SKIPS[l - 5] : l - 1, l - 1};
    const auto* const weights = static_cast<const uint16_t*>(task.network.weights[l - 1]);
    const int64_t across = parts(right - left + 2 * margin_of(l), TILE);
    alignas(64) float sums[2][2 * TILE * OUTPUT_BLOCK];
    int turn = 0;
    for (int64_t tile = 0; tile < ZERODCE_BAND * across; tile += 2, turn ^= 1) {
      const uint16_t* starts[2][ROWS];
      for (int k = 0; k < 2; ++k) {
        const int64_t i = (tile + k) / across, column = (tile + k) % across * TILE;
        for (int row = 0; row < ROWS; ++row) {
          const int source = sources[row / 3];
          const int64_t offset = l - source - 1;
          starts[k][row] =
              features[source].row(band * ZERODCE_BAND + offset + i + row % 3) + (offset + column) * CHANNELS;
        }
      }
      tile_products<2, ROWS>(starts, CHANNELS, 3, CHANNELS, weights, sums[turn]);
      // the two tiles before go on while these are multiplied
      if (tile) write(l, band, tile - 2, across, sums[turn ^ 1]);
    }
    write(l, band, ZERODCE_BAND * across - 2, across, sums[turn ^ 1]);
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
  void write(int l, int64_t band, int64_t tile, int64_t across, const float* sums) const {
    write_tiles(*this, l, band, tile, across, sums);
  }
};

ZeroDceLoop zerodce_tiles_loop() { return run_zerodce<ZeroDceTiles>; }
