// Products of tiles of bfloat16 with sums in float32, for convolutions. Included inside the namespace of
// AMX's instruction set.
//
// A tile of pixels has sixteen of them, and of each the channels of some taps of a row of the kernel, which
// lie side by side where pixels do. A tile of weights has pairs of these, and of each pair sixteen outputs.

constexpr int64_t TILE = 16;  // pixels, outputs, and at most pairs

// Pairs of bfloat16 of two vectors, lane by lane.
FASTLLIE_INLINE u32v tile_pair(f32v low, f32v high) {
  int16_t turns __attribute__((vector_size(64)));
  for (int i = 0; i < TILE; ++i) turns[2 * i] = int16_t(i), turns[2 * i + 1] = int16_t(TILE + i);
  const __m512bh both = _mm512_cvtne2ps_pbh((__m512)high, (__m512)low);
  return (u32v)_mm512_maskz_permutexvar_epi16(0xffffffffu, (__m512i)turns, (__m512i)both);
}

// The shapes of all eight tiles, as the processor takes them.
struct TileShapes {
  uint8_t palette = 1, start = 0, reserved[14] = {};
  uint16_t bytes[16] = {};  // of a row
  uint8_t rows[16] = {};

  void set(int tile, int64_t count, int64_t width) {
    rows[tile] = uint8_t(count), bytes[tile] = uint16_t(width);
  }
  void load() const {
    // GCC does not see that all of it is read, nor what tiles read later
    __asm__ volatile("" : : "r"(this) : "memory");
    _tile_loadconfig(this);
    __asm__ volatile("" ::: "memory");
  }
};

// 0 to 3 become sums, 4 and 5 pixels, 6 and 7 weights.
static void tile_shapes(int64_t pairs) {
  TileShapes shapes;
  for (int tile = 0; tile < 8; ++tile)
    shapes.set(tile, tile < 6 ? TILE : pairs, tile == 4 || tile == 5 ? 4 * pairs : 64);
  shapes.load();
}

// Two tiles of pixels by 32 outputs or, with one half of the outputs, four by 16: the sums of each pixel in
// `sums`, OUTPUT_BLOCK apart. A tile's pixels lie `pitch` values apart, from `starts` on for each row of the
// kernel; of each row there are `parts` tiles, of `depth` values of a pixel, whose weights come in turn.
template <int HALVES, int ROWS>
FASTLLIE_INLINE void tile_products(const uint16_t* const (&starts)[4 / HALVES][ROWS], int64_t pitch,
                                   int64_t parts, int64_t depth, const uint16_t* weights, float* sums) {
  const int64_t stride = pitch * int64_t(sizeof(uint16_t)), half = depth * TILE;
  // GCC does not see that tiles read memory
  __asm__ volatile("" ::: "memory");
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int row = 0; row < ROWS; ++row) {
    for (int64_t part = 0; part < parts; ++part) {
      const int64_t at = part * depth;
      _tile_loadd(6, weights, 64);
      _tile_loadd(4, starts[0][row] + at, stride);
      if constexpr (HALVES == 2) {
        _tile_loadd(7, weights + half, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, starts[1][row] + at, stride);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      } else {
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(5, starts[1][row] + at, stride);
        _tile_dpbf16ps(1, 5, 6);
        _tile_loadd(4, starts[2][row] + at, stride);
        _tile_dpbf16ps(2, 4, 6);
        _tile_loadd(5, starts[3][row] + at, stride);
        _tile_dpbf16ps(3, 5, 6);
      }
      weights += 2 * half;
    }
  }
  constexpr int64_t LINE = OUTPUT_BLOCK * sizeof(float), NEXT = TILE * OUTPUT_BLOCK;
  _tile_stored(0, sums, LINE);
  _tile_stored(1, sums + (HALVES == 2 ? TILE : NEXT), LINE);
  _tile_stored(2, sums + (HALVES == 2 ? NEXT : 2 * NEXT), LINE);
  _tile_stored(3, sums + (HALVES == 2 ? NEXT + TILE : 3 * NEXT), LINE);
  __asm__ volatile("" ::: "memory");
}
