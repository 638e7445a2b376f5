// Products of a few rows with a block of output channels, in registers. Included once for each instruction
// set, inside that set's namespace, after pack.h.

#if defined(FASTLLIE_AVX512)
constexpr int PRODUCT_ROWS = 12;  // times two vectors of sums, of 32 registers
#elif defined(FASTLLIE_AVX2)
constexpr int PRODUCT_ROWS = 6;  // of 16
#else
constexpr int PRODUCT_ROWS = 4;
#endif
static_assert(ROW_BLOCK % PRODUCT_ROWS == 0);

// Keeps a value in a register: GCC would load it anew for each multiplication.
FASTLLIE_INLINE f32v held(f32v v) {
#if defined(FASTLLIE_AVX512)
  asm("" : "+v"(v));
#elif defined(FASTLLIE_AVX2)
  asm("" : "+x"(v));
#endif
  return v;
}

// Row r of a product reads from rows + r * pitch. Three pointers reach twelve rows by the addressing modes.
template <class S>
struct Rows {
  const S* start;
  int64_t pitch;

  FASTLLIE_INLINE S at(const S* const (&base)[3], int64_t pitch, int64_t pitch3, int r, int64_t k) {
    const int64_t within = r % 4 == 3 ? pitch3 : r % 4 * pitch;
    return base[r / 4][within + k];
  }
};

// sums[r][n] += the sum over k of rows[r][k] * weights[k][n], `depth` of them.
template <int ROWS, int N>
FASTLLIE_INLINE void multiply(Rows<float> rows, const float* weights, int64_t depth, f32v (&sums)[ROWS][N]) {
  const int64_t pitch = rows.pitch, pitch3 = 3 * pitch;
  const float* base[3] = {rows.start, rows.start + 4 * pitch, rows.start + 8 * pitch};
#pragma GCC unroll 4
  for (int64_t k = 0; k < depth; ++k) {
    f32v w[N];
    for (int n = 0; n < N; ++n) w[n] = held(load<f32v>(weights + k * OUTPUT_BLOCK + n * LANES<float>));
    for (int r = 0; r < ROWS; ++r) {
      const f32v v = held(broadcast<f32v>(Rows<float>::at(base, pitch, pitch3, r, k)));
      for (int n = 0; n < N; ++n) sums[r][n] += v * w[n];
    }
  }
}

// The same of pairs of bfloat16: two values of a row lie side by side, and so do their weights.
template <int ROWS, int N>
FASTLLIE_INLINE void multiply(Rows<uint32_t> rows, const uint32_t* weights, int64_t depth,
                              f32v (&sums)[ROWS][N]) {
  const int64_t pitch = rows.pitch, pitch3 = 3 * pitch;
  const uint32_t* base[3] = {rows.start, rows.start + 4 * pitch, rows.start + 8 * pitch};
#pragma GCC unroll 4
  for (int64_t k = 0; k < depth; ++k) {
    u32v w[N];
    for (int n = 0; n < N; ++n)
      w[n] = (u32v)held((f32v)load<u32v>(weights + k * OUTPUT_BLOCK + n * LANES<float>));
    for (int r = 0; r < ROWS; ++r) {
      const u32v v = (u32v)held((f32v)(broadcast<u32v>(Rows<uint32_t>::at(base, pitch, pitch3, r, k))));
      for (int n = 0; n < N; ++n) {
#if defined(FASTLLIE_BF16)
        sums[r][n] = (f32v)_mm512_dpbf16_ps((__m512)sums[r][n], (__m512bh)v, (__m512bh)w[n]);
#else
        sums[r][n] += (f32v)(v << 16) * (f32v)(w[n] << 16);
        sums[r][n] += (f32v)(v & 0xffff0000u) * (f32v)(w[n] & 0xffff0000u);
#endif
      }
    }
  }
}

// The sums of ROWS rows over as many windows as there are starts, `pitch` from row to row, to rows of
// OUTPUT_BLOCK. Not inlined: beside other code GCC would keep the sums in memory.
template <int ROWS, int N, class S, int WINDOWS>
static __attribute__((noinline)) void product_of(const S* const (&starts)[WINDOWS], int64_t pitch,
                                                 const S* weights, int64_t depth, float* to) {
  f32v sums[ROWS][N];
#pragma GCC unroll 12
  for (int r = 0; r < ROWS; ++r)
    for (int n = 0; n < N; ++n) sums[r][n] = f32v{};
#pragma GCC unroll 1
  for (int i = 0; i < WINDOWS; ++i)
    multiply<ROWS, N>({starts[i], pitch}, weights + i * depth * OUTPUT_BLOCK, depth, sums);
#pragma GCC unroll 12
  for (int r = 0; r < ROWS; ++r)
    for (int n = 0; n < N; ++n) store(to + r * OUTPUT_BLOCK + n * LANES<float>, sums[r][n], false);
}

// Of `rows` rows, at most PRODUCT_ROWS of them; some more may be read and written.
template <int N, class S, int WINDOWS>
FASTLLIE_INLINE void product(const S* const (&starts)[WINDOWS], int64_t pitch, int64_t rows, const S* weights,
                             int64_t depth, float* to) {
  constexpr int FEW = PRODUCT_ROWS % 3 ? PRODUCT_ROWS : PRODUCT_ROWS / 3;
  constexpr int SOME = FEW < PRODUCT_ROWS ? 2 * FEW : FEW;
  if (rows <= FEW)
    product_of<FEW, N, S>(starts, pitch, weights, depth, to);
  else if (rows <= SOME)
    product_of<SOME, N, S>(starts, pitch, weights, depth, to);
  else
    product_of<PRODUCT_ROWS, N, S>(starts, pitch, weights, depth, to);
}
