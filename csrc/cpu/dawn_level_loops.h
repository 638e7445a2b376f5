// The networks of the levels of dawn's denoiser in float32. Included once for each instruction set, inside
// that set's namespace, after dawn_loops.h and winograd.h.
//
// There are few channels: each weight is broadcast to several vectors of pixels. Rows of a 3 x 3 convolution
// come in fours, by Winograd's algorithm down the columns, with half the multiplications.

constexpr int DAWN_GROUP = 4, DAWN_REACH = Winograd<4>::TAPS;  // rows that come together, and that they need

// SUMS outputs of a convolution at VECTORS vectors of pixels, TAPS wide, over `lines` rows of its inputs.
// Not inlined: beside other code GCC would keep the sums in memory.
template <int SUMS, int VECTORS, int TAPS>
static __attribute__((noinline)) void dawn_products(const float* const* rows, int64_t lines, int64_t w,
                                                    const float* weights, int64_t outputs,
                                                    f32v (&sums)[SUMS][VECTORS]) {
  f32v own[SUMS][VECTORS];
#pragma GCC unroll 12
  for (int s = 0; s < SUMS; ++s)
#pragma GCC unroll 4
    for (int n = 0; n < VECTORS; ++n) own[s][n] = f32v{};
  for (int64_t line = 0; line < lines; ++line) {
    const float* const row = rows[line] + w;
    const float* const line_weights = weights + TAPS * line * outputs;
#pragma GCC unroll 3
    for (int kx = 0; kx < TAPS; ++kx) {
      f32v v[VECTORS];
#pragma GCC unroll 4
      for (int n = 0; n < VECTORS; ++n) v[n] = load<f32v>(row + kx + n * LANES<float>);
#pragma GCC unroll 12
      for (int s = 0; s < SUMS; ++s) {
        const f32v weight = held(broadcast<f32v>(line_weights[kx * outputs + s]));
#pragma GCC unroll 4
        for (int n = 0; n < VECTORS; ++n) own[s][n] += v[n] * weight;
      }
    }
  }
#pragma GCC unroll 12
  for (int s = 0; s < SUMS; ++s)
#pragma GCC unroll 4
    for (int n = 0; n < VECTORS; ++n) sums[s][n] = own[s][n];
}

// How many outputs and vectors of pixels are summed at once: as many as stay in registers.
template <int OUTPUTS>
struct DawnSums {
#if defined(FASTLLIE_AVX512)
  static constexpr int SUMS = OUTPUTS, VECTORS = OUTPUTS == 12 ? 2 : 4;  // 24 of 32 registers, or 12
#else
  static constexpr int SUMS = OUTPUTS == 12 ? 4 : 3, VECTORS = OUTPUTS == 12 ? 2 : 4;  // 8 or 12 of 16
#endif
  static constexpr int64_t PIXELS = VECTORS * LANES<float>;
  static_assert(OUTPUTS % SUMS == 0 && DawnPlanes::WHOLE % PIXELS == 0);
};

// A row of a 1 x 1 convolution. end(output, w, sum) takes the result.
template <int OUTPUTS, class End>
FASTLLIE_INLINE void dawn_mixture(const float* const* rows, int64_t inputs, const float* weights,
                                  int64_t width, const End& end) {
  constexpr int SUMS = DawnSums<OUTPUTS>::SUMS, VECTORS = DawnSums<OUTPUTS>::VECTORS;
  for (int64_t w = 0; w < width; w += DawnSums<OUTPUTS>::PIXELS)
    for (int o = 0; o < OUTPUTS; o += SUMS) {
      f32v sums[SUMS][VECTORS];
      dawn_products<SUMS, VECTORS, 1>(rows, inputs, w, weights + o, OUTPUTS, sums);
#pragma GCC unroll 12
      for (int s = 0; s < SUMS; ++s)
#pragma GCC unroll 4
        for (int n = 0; n < VECTORS; ++n) end(o + s, w + n * LANES<float>, sums[s][n]);
    }
}

// Four rows of a 3 x 3 convolution of six rows of each input, the weights as Winograd's algorithm wants them
// along the columns. begin(w) comes before the pixels from w on, and end(row, output, w, n, sum) takes the
// result at w, the n-th of their vectors.
template <int INPUTS, int OUTPUTS, class Begin, class End>
FASTLLIE_INLINE void dawn_convolution(const float* const (&rows)[INPUTS][DAWN_REACH], const float* weights,
                                      int64_t width, const Begin& begin, const End& end) {
  constexpr int N = LANES<float>, SUMS = DawnSums<OUTPUTS>::SUMS, VECTORS = DawnSums<OUTPUTS>::VECTORS;
  alignas(64) float factors[DAWN_REACH][INPUTS][(VECTORS + 1) * N];
  const float* lines[DAWN_REACH][INPUTS];
  for (int k = 0; k < DAWN_REACH; ++k)
    for (int i = 0; i < INPUTS; ++i) lines[k][i] = factors[k][i];
  for (int64_t w = 0; w < width; w += DawnSums<OUTPUTS>::PIXELS) {
    begin(w);
    for (int i = 0; i < INPUTS; ++i)
#pragma GCC unroll 5
      for (int n = 0; n <= VECTORS; ++n) {
        f32v given[DAWN_REACH], made[DAWN_REACH];
#pragma GCC unroll 6
        for (int k = 0; k < DAWN_REACH; ++k) given[k] = load<f32v>(rows[i][k] + w - 1 + n * N);
        Winograd<4>::input(given, made);
#pragma GCC unroll 6
        for (int k = 0; k < DAWN_REACH; ++k) store(factors[k][i] + n * N, made[k], false);
      }
    for (int o = 0; o < OUTPUTS; o += SUMS) {
      f32v products[DAWN_REACH][SUMS][VECTORS];
      for (int k = 0; k < DAWN_REACH; ++k)
        dawn_products<SUMS, VECTORS, 3>(lines[k], INPUTS, 0, weights + 3 * k * INPUTS * OUTPUTS + o, OUTPUTS,
                                        products[k]);
      for (int s = 0; s < SUMS; ++s)
#pragma GCC unroll 4
        for (int n = 0; n < VECTORS; ++n) {
          f32v given[DAWN_REACH], made[DAWN_GROUP];
#pragma GCC unroll 6
          for (int k = 0; k < DAWN_REACH; ++k) given[k] = products[k][s][n];
          Winograd<4>::output(given, made);
#pragma GCC unroll 4
          for (int row = 0; row < DAWN_GROUP; ++row) end(row, o + s, w + n * N, n, made[row]);
        }
    }
  }
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
  using Band::task;
  using Band::weights;
  using Band::width;
  using Band::WIDTH;
  using Band::within;

  DawnRing magnitudes, first, second;
  const float *first_weights, *below_weights, *second_weights, *last_weights;

  static int64_t floats(int64_t width) {
    return Band::floats(width) + DawnRing::floats(3 + 2 * WIDTH, width);
  }
  DawnLevel(const DawnTask& task, float*& next)
      : Band(task, next),
        magnitudes(next, 3, width),
        first(next, WIDTH, width),
        second(next, WIDTH, width),
        first_weights(static_cast<const float*>(task.network.weights)) {
    for (int level = 1; level < LEVEL; ++level) first_weights += dawn_weights(level);
    below_weights = first_weights + DAWN_KERNEL * INPUTS * WIDTH;
    second_weights = below_weights + (BELOW ? WIDTH * WIDTH : 0);
    last_weights = second_weights + DAWN_KERNEL * WIDTH * WIDTH;
  }

  void prepare_row(int64_t r) const {
    this->prepare(r, {magnitudes.row(0, r), magnitudes.row(1, r), magnitudes.row(2, r)});
  }

  // The rows that four rows from `top` on are made of: row_of(input, r).
  template <int COUNT, class Row>
  void around(int64_t top, const float* (&rows)[COUNT][DAWN_REACH], const Row& row_of) const {
    for (int k = 0; k < DAWN_REACH; ++k) {
      const int64_t r = within(top + k - 1);
      for (int i = 0; i < COUNT; ++i) rows[i][k] = row_of(i, r);
    }
  }

  void first_rows(int64_t top) const {
    constexpr int N = LANES<float>;
    constexpr std::make_index_sequence<N> lanes{};
    const float* rows[INPUTS][DAWN_REACH];
    around(top, rows, [&](int i, int64_t r) {
      return i < 3 ? magnitudes.row(i, r) : i < 6 ? means.row(i - 3, r) : task.finest.row(i - 6, r);
    });
    float* to[DAWN_GROUP][WIDTH] = {};
    const float* found[DAWN_GROUP][WIDTH] = {};
    of_group(top, [&](int row, int64_t r) {
      for (int o = 0; o < WIDTH; ++o) {
        to[row][o] = first.row(o, r);
        if constexpr (BELOW) found[row][o] = task.found[LEVEL - 1].row(o, r / 2);
      }
    });
    // asks for what the next four rows read that no loop has gone through lately: too many rows side by side
    // for the processor to see what comes
    const auto ahead = [&](int64_t w) __attribute__((always_inline)) {
      for (int row = 0; row < DAWN_GROUP; ++row) {
        const int64_t r = within(top + DAWN_GROUP + row);
        if constexpr (LEVEL == 1)
          for (int c = 0; c < 3; ++c)
            for (int64_t at = w; at < w + DawnSums<WIDTH>::PIXELS; at += DAWN_LINE)
              __builtin_prefetch(task.finest.row(c, r) + at);
        if constexpr (BELOW)
          if (row % 2 == 0)
            for (int o = 0; o < WIDTH; ++o) __builtin_prefetch(task.found[LEVEL - 1].row(o, r / 2) + w / 2);
      }
    };
    dawn_convolution<INPUTS, WIDTH>(
        rows, first_weights, width, ahead, [&](int row, int o, int64_t w, int n, f32v v) {
          if (!to[row][o]) return;
          v += broadcast<f32v>(biases[o]);
          if constexpr (BELOW) {
            // what the level below has found, each pixel twice
            static_assert(DawnSums<WIDTH>::VECTORS == 2);
            const f32v half = load<f32v>(found[row][o] + (w - n * N) / 2);
            v +=
                n ? shuffle<DawnTurns<N, 1>>(half, half, lanes) : shuffle<DawnTurns<N, 0>>(half, half, lanes);
          }
          store(to[row][o] + w, dawn_leaky(v), false);
        });
    extend(first, top);
  }

  void second_rows(int64_t top) const {
    const float *rows[WIDTH][DAWN_REACH], *given[DAWN_GROUP][WIDTH] = {};
    float* to[DAWN_GROUP][WIDTH] = {};
    around(top, rows, [&](int i, int64_t r) { return first.row(i, r); });
    of_group(top, [&](int row, int64_t r) {
      for (int o = 0; o < WIDTH; ++o) given[row][o] = first.row(o, r), to[row][o] = second.row(o, r);
    });
    dawn_convolution<WIDTH, WIDTH>(
        rows, second_weights, width, [](int64_t) {},
        [&](int row, int o, int64_t w, int, f32v v) {
          if (!to[row][o]) return;
          v = dawn_leaky(v + broadcast<f32v>(biases[WIDTH + o]));
          store(to[row][o] + w, load<f32v>(given[row][o] + w) + v, false);
        });
    extend(second, top);
  }

  void last_rows(int64_t top) const {
    const float* rows[WIDTH][DAWN_REACH];
    float* to[DAWN_GROUP][OUTPUTS] = {};
    around(top, rows, [&](int i, int64_t r) { return second.row(i, r); });
    of_group(top, [&](int row, int64_t r) {
      for (int o = 0; o < OUTPUTS; ++o) to[row][o] = weights.row(o, r);
    });
    const f32v one = broadcast<f32v>(1.0f);
    const float amount = task.network.denoise;
    dawn_convolution<WIDTH, OUTPUTS>(
        rows, last_weights, width, [](int64_t) {},
        [&](int row, int o, int64_t w, int, f32v v) {
          if (!to[row][o]) return;
          v += broadcast<f32v>(biases[2 * WIDTH + o]);
          // 1 - amount (1 - sigmoid(v))
          store(to[row][o] + w, one - amount / (one + exp_of(v, one)), false);
        });
  }

  void extend(const DawnRing& ring, int64_t top) const {
    of_group(top, [&](int, int64_t r) {
      for (int o = 0; o < WIDTH; ++o) dawn_extend(ring.row(o, r), width);
    });
  }

  // What row r has for the level above.
  void tell(int64_t r) const {
    // of the network above, behind its first convolution
    const float* above =
        static_cast<const float*>(task.network.weights) + DAWN_KERNEL * dawn_inputs(LEVEL - 1) * WIDTH;
    for (int other = 1; other < LEVEL - 1; ++other) above += dawn_weights(other);
    const float* rows[WIDTH];
    for (int i = 0; i < WIDTH; ++i) rows[i] = second.row(i, r);
    dawn_mixture<WIDTH>(rows, WIDTH, above, width, [&](int o, int64_t w, f32v v) {
      store(task.found[LEVEL - 2].row(o, r) + w, v, false);
    });
  }

  static void rest() {}
};
