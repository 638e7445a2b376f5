// The networks of the levels of dawn's denoiser in bfloat16 with sums in float32, by the tiles of AMX.
// Included inside that instruction set's namespace, after dawn_loops.h and convolution_tiles.h, in the place
// of dawn_level_loops.h.
//
// A product of tiles takes outputs by pairs of inputs, of pairs of inputs by pixels, and gives outputs by
// pixels. So two channels of a pixel lie side by side, then sixteen pixels of them, then the pairs of
// channels three times: of the pixel to the left, of the pixel itself, and of the one to the right. That is a
// block; the taps of a row of a 3 x 3 kernel are its lines from the first to the last.

constexpr int DAWN_GROUP = 2;  // rows that come together: with 2 blocks of each all tiles are in use
constexpr int DAWN_TAPS = 3, DAWN_LANES = 16;
constexpr int64_t DAWN_KEPT = 4;  // rows of a layer; a power of two

FASTLLIE_INLINE f32v dawn_low(u32v pair) { return (f32v)(pair << 16); }
FASTLLIE_INLINE f32v dawn_high(u32v pair) { return (f32v)(pair & 0xffff0000u); }
// Lanes from SKIP on of two vectors, one after the other.
template <int SKIP>
FASTLLIE_INLINE u32v dawn_shifted(u32v first, u32v second) {
  return (u32v)_mm512_maskz_alignr_epi32(0xffff, (__m512i)second, (__m512i)first, SKIP);
}
// Of `from` in each lane that of its index.
FASTLLIE_INLINE u32v dawn_permuted(u32v from, i32v index) {
  return (u32v)_mm512_maskz_permutexvar_epi32(0xffff, (__m512i)index, (__m512i)from);
}
const i32v DAWN_END = i32v{} + (DAWN_LANES - 1);

// Rows of PAIRS pairs of channels.
template <int PAIRS>
struct DawnBlocks {
  static constexpr int64_t BLOCK = DAWN_TAPS * PAIRS * DAWN_LANES;
  uint32_t* start;
  int64_t width, blocks;

  static int64_t blocks_of(int64_t width) { return rounded_up(parts(width, DAWN_LANES), 2); }
  static int64_t floats(int64_t width) { return DAWN_KEPT * blocks_of(width) * BLOCK; }
  DawnBlocks(float*& next, int64_t width)
      : start(reinterpret_cast<uint32_t*>(next)), width(width), blocks(blocks_of(width)) {
    next += floats(width);
  }
  uint32_t* row(int64_t r) const { return start + (r & (DAWN_KEPT - 1)) * blocks * BLOCK; }
  // The pairs themselves.
  static uint32_t* middle(uint32_t* row, int64_t block) { return row + block * BLOCK + PAIRS * DAWN_LANES; }

  // Writes a row, block by block, of each all pairs.
  struct Writer {
    const DawnBlocks& kept;
    uint32_t* to = nullptr;
    u32v last[PAIRS];

    FASTLLIE_INLINE void put(Writer& own, int64_t block, int pair, u32v v) {
      const int64_t there = own.kept.width - block * DAWN_LANES;
      if (there < DAWN_LANES) {  // the row goes on with its end
        i32v index;
        for (int i = 0; i < DAWN_LANES; ++i) index[i] = i;
        const i32v end = i32v{} + int32_t(there - 1);
        v = there > 0 ? dawn_permuted(v, index < end ? index : end) : dawn_permuted(own.last[pair], DAWN_END);
      }
      u32v& last = own.last[pair];
      uint32_t* const at = own.to + block * BLOCK + pair * DAWN_LANES;
      if (block)
        store(at - BLOCK + 2 * PAIRS * DAWN_LANES, dawn_shifted<1>(last, v), false);
      else
        last = dawn_permuted(v, i32v{});
      store(at, dawn_shifted<DAWN_LANES - 1>(last, v), false);
      store(at + PAIRS * DAWN_LANES, v, false);
      last = v;
    }
    // After the last block.
    FASTLLIE_INLINE void end(Writer& own) {
      for (int pair = 0; pair < PAIRS; ++pair) {
        const u32v last = own.last[pair];
        store(own.to + (own.kept.blocks - 1) * BLOCK + (2 * PAIRS + pair) * DAWN_LANES,
              dawn_shifted<1>(last, dawn_permuted(last, DAWN_END)), false);
      }
    }
  };
};

// 0 to 3 become sums, 4 to 6 weights, 7 pixels.
template <int OUTPUTS, int LINES>
static void dawn_shapes() {
  TileShapes shapes;
  for (int tile = 0; tile < 8; ++tile)
    shapes.set(tile, tile == 7 ? LINES : OUTPUTS, tile < 4 || tile == 7 ? 64 : 4 * LINES);
  shapes.load();
}

// Two rows of a 3 x 3 convolution, of four rows of its inputs. end(row, block, sums) takes sixteen pixels of
// each output.
template <int PAIRS, int OUTPUTS, class End>
FASTLLIE_INLINE void dawn_convolution(uint32_t* const (&rows)[DAWN_GROUP + 2], const uint16_t* weights,
                                      int64_t blocks, const End& end) {
  constexpr int64_t BLOCK = DawnBlocks<PAIRS>::BLOCK;
  constexpr int PARTS = dawn_tile_parts(PAIRS), LINES = DAWN_TAPS * PAIRS / PARTS;
  constexpr int64_t TILE = OUTPUTS * DAWN_TILE;
  alignas(64) float sums[2][2 * DAWN_GROUP][OUTPUTS * DAWN_LANES];
  dawn_shapes<OUTPUTS, LINES>();
  const auto ends = [&](int64_t block) __attribute__((always_inline)) {
    for (int i = 0; i < 2 * DAWN_GROUP; ++i) end(i / 2, block + i % 2, sums[block / 2 & 1][i]);
  };
  for (int64_t block = 0; block < blocks; block += 2) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int part = 0; part < PARTS; ++part) {
      _tile_loadd(4, weights + part * TILE, 2 * DAWN_TILE);
      _tile_loadd(5, weights + (PARTS + part) * TILE, 2 * DAWN_TILE);
      _tile_loadd(6, weights + (2 * PARTS + part) * TILE, 2 * DAWN_TILE);
      const int64_t at = block * BLOCK + part * LINES * DAWN_LANES;
      _tile_loadd(7, rows[0] + at, 64);
      _tile_dpbf16ps(0, 4, 7);
      _tile_loadd(7, rows[0] + at + BLOCK, 64);
      _tile_dpbf16ps(1, 4, 7);
      _tile_loadd(7, rows[1] + at, 64);
      _tile_dpbf16ps(0, 5, 7);
      _tile_dpbf16ps(2, 4, 7);
      _tile_loadd(7, rows[1] + at + BLOCK, 64);
      _tile_dpbf16ps(1, 5, 7);
      _tile_dpbf16ps(3, 4, 7);
      _tile_loadd(7, rows[2] + at, 64);
      _tile_dpbf16ps(0, 6, 7);
      _tile_dpbf16ps(2, 5, 7);
      _tile_loadd(7, rows[2] + at + BLOCK, 64);
      _tile_dpbf16ps(1, 6, 7);
      _tile_dpbf16ps(3, 5, 7);
      _tile_loadd(7, rows[3] + at, 64);
      _tile_dpbf16ps(2, 6, 7);
      _tile_loadd(7, rows[3] + at + BLOCK, 64);
      _tile_dpbf16ps(3, 6, 7);
    }
    // those of the two blocks before go on while the tiles are multiplied
    if (block) ends(block - 2);
    float (&to)[2 * DAWN_GROUP][OUTPUTS * DAWN_LANES] = sums[block / 2 & 1];
    _tile_stored(0, to[0], 64);
    _tile_stored(1, to[1], 64);
    _tile_stored(2, to[2], 64);
    _tile_stored(3, to[3], 64);
  }
  ends(blocks - 2);
}

// The network of one level over a band of its rows.
template <int LEVEL>
struct DawnLevel : DawnBand<LEVEL, DAWN_GROUP> {
  using Band = DawnBand<LEVEL, DAWN_GROUP>;
  using Band::BELOW;
  using Band::biases;
  using Band::INPUTS;
  using Band::means;
  using Band::of_group;
  using Band::OUTPUTS;
  using Band::REACH;
  using Band::task;
  using Band::weights;
  using Band::width;
  using Band::WIDTH;
  using Band::within;
  static constexpr int PAIRS = (INPUTS + 1) / 2, OWN = WIDTH / 2;

  DawnBlocks<PAIRS> seen;
  DawnBlocks<OWN> first, second;
  float* magnitudes[3];
  const uint16_t *first_weights, *second_weights, *last_weights;

  static int64_t floats(int64_t width) {
    return Band::floats(width) + DawnBlocks<PAIRS>::floats(width) + 2 * DawnBlocks<OWN>::floats(width) +
           3 * DawnPlanes::pitch_of(width);
  }
  DawnLevel(const DawnTask& task, float*& next)
      : Band(task, next),
        seen(next, width),
        first(next, width),
        second(next, width),
        first_weights(static_cast<const uint16_t*>(task.network.weights)) {
    for (float*& row : magnitudes) {
      row = next + DawnPlanes::BEFORE;
      next += DawnPlanes::pitch_of(width);
    }
    for (int level = 1; level < LEVEL; ++level) first_weights += dawn_tile_weights(level);
    second_weights = first_weights + dawn_tiles(PAIRS) * WIDTH * DAWN_TILE + (BELOW ? WIDTH * DAWN_TILE : 0);
    last_weights = second_weights + dawn_tiles(OWN) * WIDTH * DAWN_TILE;
  }

  void prepare_row(int64_t r) const {
    this->prepare(r, magnitudes);
    typename DawnBlocks<PAIRS>::Writer writer{seen, seen.row(r)};
    const float* planes[2 * PAIRS];
    for (int i = 0; i < INPUTS; ++i)
      planes[i] = i < 3 ? magnitudes[i] : i < 6 ? means.row(i - 3, r) : task.finest.row(i - 6, r);
    for (int64_t block = 0; block < seen.blocks; ++block)
#pragma GCC unroll 5
      for (int pair = 0; pair < PAIRS; ++pair) {
        const int64_t at = block * DAWN_LANES;
        const f32v low = load<f32v>(planes[2 * pair] + at);
        const f32v high = 2 * pair + 1 < INPUTS ? load<f32v>(planes[2 * pair + 1] + at) : f32v{};
        writer.put(writer, block, pair, tile_pair(low, high));
      }
    writer.end(writer);
  }

  // The rows that two rows from `top` on are made of.
  template <int COUNT>
  void around(int64_t top, const DawnBlocks<COUNT>& kept, uint32_t* (&rows)[REACH]) const {
    for (int k = 0; k < REACH; ++k) rows[k] = kept.row(within(top + k - 1));
  }

  void first_rows(int64_t top) const {
    uint32_t* rows[REACH];
    around(top, seen, rows);
    typename DawnBlocks<OWN>::Writer writers[DAWN_GROUP]{{first}, {first}};
    const float* found[DAWN_GROUP][OWN] = {};
    of_group(top, [&](int row, int64_t r) {
      writers[row].to = first.row(r);
      if constexpr (BELOW)
        for (int pair = 0; pair < OWN; ++pair) found[row][pair] = task.found[LEVEL - 1].row(pair, r / 2);
    });
    i32v twice;
    for (int i = 0; i < DAWN_LANES; ++i) twice[i] = i / 2;
    dawn_convolution<PAIRS, WIDTH>(
        rows, first_weights, seen.blocks, [&](int row, int64_t block, const float* sums) {
          if (!writers[row].to) return;
#pragma GCC unroll 6
          for (int pair = 0; pair < OWN; ++pair) {
            f32v v[2];
            for (int k = 0; k < 2; ++k)
              v[k] = load<f32v>(sums + (2 * pair + k) * DAWN_LANES) + broadcast<f32v>(biases[2 * pair + k]);
            // what the level below has found, each pixel twice
            if constexpr (BELOW) {
              const u32v below = dawn_permuted(load<u32v>(found[row][pair] + block * DAWN_LANES / 2), twice);
              v[0] += dawn_low(below);
              v[1] += dawn_high(below);
            }
            writers[row].put(writers[row], block, pair, tile_pair(dawn_leaky(v[0]), dawn_leaky(v[1])));
          }
        });
    of_group(top, [&](int row, int64_t) { writers[row].end(writers[row]); });
  }

  void second_rows(int64_t top) const {
    uint32_t *rows[REACH], *given[DAWN_GROUP] = {};
    around(top, first, rows);
    typename DawnBlocks<OWN>::Writer writers[DAWN_GROUP]{{second}, {second}};
    of_group(top, [&](int row, int64_t r) {
      writers[row].to = second.row(r);
      given[row] = first.row(r);
    });
    dawn_convolution<OWN, WIDTH>(rows, second_weights, second.blocks,
                                 [&](int row, int64_t block, const float* sums) {
                                   if (!writers[row].to) return;
                                   const uint32_t* const before = first.middle(given[row], block);
#pragma GCC unroll 6
                                   for (int pair = 0; pair < OWN; ++pair) {
                                     f32v v[2];
                                     for (int k = 0; k < 2; ++k)
                                       v[k] = dawn_leaky(load<f32v>(sums + (2 * pair + k) * DAWN_LANES) +
                                                         broadcast<f32v>(biases[WIDTH + 2 * pair + k]));
                                     const u32v own = load<u32v>(before + pair * DAWN_LANES);
                                     writers[row].put(writers[row], block, pair,
                                                      tile_pair(v[0] + dawn_low(own), v[1] + dawn_high(own)));
                                   }
                                 });
    of_group(top, [&](int row, int64_t) { writers[row].end(writers[row]); });
  }

  void last_rows(int64_t top) const {
    uint32_t* rows[REACH];
    float* to[DAWN_GROUP] = {};
    around(top, second, rows);
    of_group(top, [&](int row, int64_t r) { to[row] = weights.row(0, r); });
    const f32v one = broadcast<f32v>(1.0f);
    const float amount = task.network.denoise;
    dawn_convolution<OWN, OUTPUTS>(
        rows, last_weights, second.blocks, [&](int row, int64_t block, const float* sums) {
          if (!to[row]) return;
#pragma GCC unroll 6
          for (int o = 0; o < OUTPUTS; ++o) {
            const f32v v = load<f32v>(sums + o * DAWN_LANES) + broadcast<f32v>(biases[2 * WIDTH + o]);
            // 1 - amount (1 - sigmoid(v))
            store(to[row] + o * weights.pitch + block * DAWN_LANES,
                  one - amount * dawn_reciprocal(one + exp_of(v, one)), false);
          }
        });
  }

  // What row r has for the level above: pairs of bfloat16 in planes of float.
  void tell(int64_t r) const {
    // of the network above, behind its first convolution
    const uint16_t* above = static_cast<const uint16_t*>(task.network.weights) +
                            dawn_tiles(parts(dawn_inputs(LEVEL - 1), 2)) * WIDTH * DAWN_TILE;
    for (int other = 1; other < LEVEL - 1; ++other) above += dawn_tile_weights(other);
    uint32_t* const row = second.row(r);
    alignas(64) float sums[WIDTH * DAWN_LANES];
    dawn_shapes<WIDTH, OWN>();
    _tile_loadd(4, above, 2 * DAWN_TILE);
    for (int64_t block = 0; block < second.blocks; ++block) {
      _tile_zero(0);
      _tile_loadd(7, second.middle(row, block), 64);
      _tile_dpbf16ps(0, 4, 7);
      _tile_stored(0, sums, 64);
      for (int pair = 0; pair < OWN; ++pair)
        store(task.found[LEVEL - 2].row(pair, r) + block * DAWN_LANES,
              tile_pair(load<f32v>(sums + 2 * pair * DAWN_LANES),
                        load<f32v>(sums + (2 * pair + 1) * DAWN_LANES)),
              false);
    }
  }

  // Gives the tiles back, which the system would otherwise keep for the thread.
  static void rest() { _tile_release(); }
};
