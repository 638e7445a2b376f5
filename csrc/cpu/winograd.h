// The transforms of Winograd's convolutions: M x M outputs of a 3 x 3 kernel from (M + 2)^2 products.
// Included once for each instruction set, inside that set's namespace, after pack.h.
//
// Y = A^T [ (G g G^T) . (B^T d B) ] A for the points 0, +-a, +-b and infinity (M = 4) or 0, +-1 and infinity
// (M = 2). With a^2 = 1/2 and b^2 = 2 the results are closer to the exact ones than with 1 and 2. Weights
// that stay are packed in float64, by the G in fastllie.ops.convolution.

constexpr float POINT_A = 0.70710678f, POINT_B = 1.41421356f;

template <int M>
struct Winograd;

template <>
struct Winograd<4> {
  static constexpr int TAPS = 6;

  // B^T times a column, and A^T times one
  FASTLLIE_INLINE void input(const f32v (&d)[6], f32v (&t)[6]) {
    const f32v even_a = d[4] - 2.0f * d[2], odd_a = d[3] - 2.0f * d[1];
    const f32v even_b = d[4] - 0.5f * d[2], odd_b = d[3] - 0.5f * d[1];
    t[0] = (d[0] - 2.5f * d[2]) + d[4];
    t[1] = even_a + POINT_A * odd_a;
    t[2] = even_a - POINT_A * odd_a;
    t[3] = even_b + POINT_B * odd_b;
    t[4] = even_b - POINT_B * odd_b;
    t[5] = (d[1] - 2.5f * d[3]) + d[5];
  }
  FASTLLIE_INLINE void output(const f32v (&m)[6], f32v (&y)[4]) {
    const f32v even_a = m[1] + m[2], odd_a = POINT_A * (m[1] - m[2]);
    const f32v even_b = m[3] + m[4], odd_b = POINT_B * (m[3] - m[4]);
    y[0] = m[0] + even_a + even_b;
    y[1] = odd_a + odd_b;
    y[2] = 0.5f * even_a + 2.0f * even_b;
    y[3] = (0.5f * odd_a + m[5]) + 2.0f * odd_b;
  }

  // G times a column of a kernel; A times one of outputs' gradients, and G^T times one of what these give
  FASTLLIE_INLINE void kernel(const f32v (&g)[3], f32v (&u)[6]) {
    const f32v even_a = (-2.0f / 3) * g[0] - (1.0f / 3) * g[2], odd_a = (-2.0f / 3 * POINT_A) * g[1];
    const f32v even_b = (1.0f / 6) * g[0] + (1.0f / 3) * g[2], odd_b = (1.0f / 6 * POINT_B) * g[1];
    u[0] = g[0];
    u[1] = even_a + odd_a;
    u[2] = even_a - odd_a;
    u[3] = even_b + odd_b;
    u[4] = even_b - odd_b;
    u[5] = g[2];
  }
  FASTLLIE_INLINE void output_gradient(const f32v (&y)[4], f32v (&m)[6]) {
    const f32v even_a = y[0] + 0.5f * y[2], odd_a = POINT_A * (y[1] + 0.5f * y[3]);
    const f32v even_b = y[0] + 2.0f * y[2], odd_b = POINT_B * (y[1] + 2.0f * y[3]);
    m[0] = y[0];
    m[1] = even_a + odd_a;
    m[2] = even_a - odd_a;
    m[3] = even_b + odd_b;
    m[4] = even_b - odd_b;
    m[5] = y[3];
  }
  FASTLLIE_INLINE void kernel_gradient(const f32v (&m)[6], f32v (&g)[3]) {
    const f32v even_a = m[1] + m[2], odd_a = m[1] - m[2], even_b = m[3] + m[4], odd_b = m[3] - m[4];
    g[0] = (m[0] - (2.0f / 3) * even_a) + (1.0f / 6) * even_b;
    g[1] = (1.0f / 6 * POINT_B) * odd_b - (2.0f / 3 * POINT_A) * odd_a;
    g[2] = (m[5] - (1.0f / 3) * even_a) + (1.0f / 3) * even_b;
  }
};

template <>
struct Winograd<2> {
  static constexpr int TAPS = 4;

  FASTLLIE_INLINE void input(const f32v (&d)[4], f32v (&t)[4]) {
    t[0] = d[0] - d[2];
    t[1] = d[1] + d[2];
    t[2] = d[2] - d[1];
    t[3] = d[1] - d[3];
  }
  FASTLLIE_INLINE void output(const f32v (&m)[4], f32v (&y)[2]) {
    y[0] = m[0] + m[1] + m[2];
    y[1] = m[1] - m[2] - m[3];
  }

  FASTLLIE_INLINE void kernel(const f32v (&g)[3], f32v (&u)[4]) {
    const f32v even = 0.5f * (g[0] + g[2]), odd = 0.5f * g[1];
    u[0] = g[0];
    u[1] = even + odd;
    u[2] = even - odd;
    u[3] = g[2];
  }
};

// The transform of each column of a tile of FROM x FROM vectors, then of each row of what comes out:
// load_at(i, j) gives the vector of row i and column j, store_at(i, j, v) takes one of the TO x TO.
template <int FROM, int TO, class Transform, class Load, class Store>
FASTLLIE_INLINE void transform_tile(const Transform& transform, const Load& load_at, const Store& store_at) {
  f32v half[TO][FROM];
#pragma GCC unroll 6
  for (int j = 0; j < FROM; ++j) {
    f32v column[FROM], result[TO];
#pragma GCC unroll 6
    for (int i = 0; i < FROM; ++i) column[i] = load_at(i, j);
    transform(column, result);
#pragma GCC unroll 6
    for (int i = 0; i < TO; ++i) half[i][j] = result[i];
  }
#pragma GCC unroll 6
  for (int i = 0; i < TO; ++i) {
    f32v result[TO];
    transform(half[i], result);
#pragma GCC unroll 6
    for (int j = 0; j < TO; ++j) store_at(i, j, result[j]);
  }
}

// A tile of (M + 2)^2 pixels, `at` elements into as many rows, to as many products' factors, which lie
// `pitch` apart.
template <int M, class Pixel, class Factor>
FASTLLIE_INLINE void transform_input(const typename Pixel::Element* const (&rows)[M + 2], int64_t at,
                                     int64_t pixel_pitch, typename Factor::Element* to, int64_t pitch) {
  constexpr int TAPS = Winograd<M>::TAPS;
  transform_tile<TAPS, TAPS>(
      Winograd<M>::input,
      [&](int i, int j) __attribute__((always_inline)) {
        return Pixel::widen(load<typename Pixel::Stored>(rows[i] + at + j * pixel_pitch));
      },
      [&](int i, int j, f32v v)
          __attribute__((always_inline)) { store(to + (i * TAPS + j) * pitch, Factor::narrow(v), false); });
}

// The sums of the products, `pitch` apart, to M^2 outputs.
template <int M>
FASTLLIE_INLINE void transform_output(const float* from, int64_t pitch, f32v (&y)[M][M]) {
  constexpr int TAPS = Winograd<M>::TAPS;
  transform_tile<TAPS, M>(
      Winograd<M>::output,
      [&](int i, int j) __attribute__((always_inline)) { return load<f32v>(from + (i * TAPS + j) * pitch); },
      [&](int i, int j, f32v v) __attribute__((always_inline)) { y[i][j] = v; });
}
