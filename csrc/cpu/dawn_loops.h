// The loops of dawn's denoiser: its pyramid and the networks of its levels. Included once for each
// instruction set, inside that set's namespace.
//
// Planes lie one after the other and vectors along their rows, because there are few channels: each weight is
// broadcast to several vectors of pixels. Rows of a 3 x 3 convolution come in fours, by Winograd's algorithm
// down the columns, with half the multiplications. Of every layer only the rows that the next one still reads
// are kept.

constexpr int DAWN_GROUP = 4, DAWN_REACH = Winograd<4>::TAPS;  // rows that come together, and that they need
constexpr int64_t DAWN_RING = 8;                               // rows kept; a power of two
constexpr int64_t DAWN_LINE = 16;                              // floats of a line of the caches
constexpr float DAWN_SLOPE = 0.1f, DAWN_LARGEST = 4.0f;

// The row goes on with its ends.
static void dawn_extend(float* row, int64_t width) {
  row[-1] = row[0];
  const int64_t end = rounded_up(width, DawnPlanes::WHOLE) + DawnPlanes::AFTER;
  for (int64_t w = width; w < end; ++w) row[w] = row[width - 1];
}

// `planes` rows of each of the last few of a layer.
struct DawnRing {
  float* start;
  int64_t planes, pitch;

  static int64_t floats(int64_t planes, int64_t width) {
    return DAWN_RING * planes * DawnPlanes::pitch_of(width);
  }
  DawnRing(float*& next, int64_t planes, int64_t width)
      : start(next + DawnPlanes::BEFORE), planes(planes), pitch(DawnPlanes::pitch_of(width)) {
    next += floats(planes, width);
  }
  float* row(int64_t plane, int64_t r) const {
    return start + ((r & (DAWN_RING - 1)) * planes + plane) * pitch;
  }
};

// Lanes of two vectors in turns.
template <int N, int HALF>
struct DawnTurns {
  static constexpr int at(int i) { return (HALF * N + i) / 2 + (i % 2 ? N : 0); }
};
// The even, or odd, lanes of two vectors one after the other.
template <int ODD>
struct DawnEvery {
  static constexpr int at(int i) { return 2 * i + ODD; }
};

// The lanes of two vectors from SKIP on.
template <int SKIP>
struct DawnFrom {
  static constexpr int at(int i) { return SKIP + i; }
};

// `count` pixels of a row at half size, from `from` on, enlarged to twice as many: three quarters of the
// nearer row and pixel, a quarter of the other. Writes whole vectors, and reads one more on both sides.
static void dawn_enlarge(const float* near, const float* far, int64_t from, int64_t count, float* to) {
  constexpr int N = LANES<float>;
  constexpr std::make_index_sequence<N> lanes{};
  const auto down = [&](int64_t w) { return load<f32v>(near + w) * 0.75f + load<f32v>(far + w) * 0.25f; };
  f32v last = down(from - N), here = down(from);
  for (int64_t at = 0; at < count; at += N) {
    const f32v next = down(from + at + N), most = here * 0.75f;
    const f32v even = shuffle<DawnFrom<N - 1>>(last, here, lanes) * 0.25f + most;
    const f32v odd = most + shuffle<DawnFrom<1>>(here, next, lanes) * 0.25f;
    store(to + 2 * at, shuffle<DawnTurns<N, 0>>(even, odd, lanes), false);
    store(to + 2 * at + N, shuffle<DawnTurns<N, 1>>(even, odd, lanes), false);
    last = here;
    here = next;
  }
}

// Means of 2 x 2 pixels of two rows, `count` of them. Reads and writes whole vectors.
static void dawn_reduce(const float* upper, const float* lower, int64_t count, float* to) {
  constexpr int N = LANES<float>;
  constexpr std::make_index_sequence<N> lanes{};
  for (int64_t at = 0; at < count; at += N) {
    f32v sums[2];
    for (int k = 0; k < 2; ++k)
      sums[k] = load<f32v>(upper + 2 * at + k * N) + load<f32v>(lower + 2 * at + k * N);
    const f32v sum =
        shuffle<DawnEvery<0>>(sums[0], sums[1], lanes) + shuffle<DawnEvery<1>>(sums[0], sums[1], lanes);
    store(to + at, sum * 0.25f, false);
  }
}

// The row of the level above that lies nearer to the far side of row r: its neighbour, or itself at the end.
static int64_t dawn_far(int64_t r, int64_t height) {
  const int64_t far = r / 2 + (r % 2 ? 1 : -1);
  return far < 0 ? 0 : smaller(far, height - 1);
}

// What remains of a row when the next level is taken off, and its magnitude beside the noise.
static void dawn_band(const float* row, const float* coarser, int64_t count, float gain, float* band,
                      float* magnitudes) {
  const f32v most = broadcast<f32v>(DAWN_LARGEST);
  for (int64_t at = 0; at < count; at += LANES<float>) {
    const f32v v = load<f32v>(row + at) - load<f32v>(coarser + at);
    if (band) store(band + at, v, false);
    store(magnitudes + at, Bounds::at_most(magnitude(v) * gain, most), false);
  }
}

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

FASTLLIE_INLINE f32v dawn_leaky(f32v v) { return Bounds::at_least(v, v * DAWN_SLOPE); }

// The network of one level over a band of its rows, and what it weighs.
template <int LEVEL>
struct DawnLevel {
  static constexpr int INPUTS = dawn_inputs(LEVEL), OUTPUTS = dawn_outputs(LEVEL), WIDTH = DAWN_WIDTH;
  static constexpr bool BELOW = LEVEL + 1 < DAWN_LEVELS;

  const DawnTask& task;
  const DawnPlanes &means, &coarser;
  int64_t height, width;
  DawnRing bands, magnitudes, first, second, weights;
  float* enlarged;
  const float *first_weights, *below_weights, *second_weights, *last_weights, *biases;

  static int64_t floats(int64_t width) {
    return DawnRing::floats(2 * 3 + 2 * WIDTH + OUTPUTS, width) + DawnPlanes::pitch_of(width);
  }
  DawnLevel(const DawnTask& task, float*& next)
      : task(task),
        means(task.mean[LEVEL - 1]),
        coarser(task.mean[LEVEL]),
        height(means.height),
        width(means.width),
        bands(next, 3, width),
        magnitudes(next, 3, width),
        first(next, WIDTH, width),
        second(next, WIDTH, width),
        weights(next, OUTPUTS, width),
        enlarged(next) {
    next += DawnPlanes::pitch_of(width);
    first_weights = task.network.weights;
    biases = task.network.biases + task.image * DAWN_BIASES;
    for (int level = 1; level < LEVEL; ++level) {
      first_weights += dawn_weights(level);
      biases += 2 * WIDTH + dawn_outputs(level);
    }
    below_weights = first_weights + DAWN_KERNEL * INPUTS * WIDTH;
    second_weights = below_weights + (BELOW ? WIDTH * WIDTH : 0);
    last_weights = second_weights + DAWN_KERNEL * WIDTH * WIDTH;
  }
  static constexpr int64_t DAWN_BIASES = 6 * WIDTH + 6 + 3 + 3;

  int64_t within(int64_t r) const { return r < 0 ? 0 : smaller(r, height - 1); }

  // Band and magnitudes of row r.
  void prepare(int64_t r) const {
    for (int c = 0; c < 3; ++c) {
      dawn_enlarge(coarser.row(c, r / 2), coarser.row(c, dawn_far(r, coarser.height)), 0, coarser.width,
                   enlarged);
      dawn_band(means.row(c, r), enlarged, width, task.gains(LEVEL)[c], bands.row(c, r),
                magnitudes.row(c, r));
      dawn_extend(magnitudes.row(c, r), width);
    }
  }

  // Calls body(row, r) for those of the rows from `top` on that the picture has.
  template <class Body>
  void of_group(int64_t top, const Body& body) const {
    for (int64_t r = top < 0 ? 0 : top; r < smaller(top + DAWN_GROUP, height); ++r) body(int(r - top), r);
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

  // Calls emit(r) for rows `from` to `to` when their weights and their band are there. Which rows come
  // together is the same wherever a band begins, and so are the bits. Each layer is a row ahead of the next.
  template <class Emit>
  void run(int64_t from, int64_t to, const Emit& emit) const {
    const int64_t begin = from / DAWN_GROUP * DAWN_GROUP;
    int64_t prepared = within(begin - 2 * DAWN_GROUP + 1);
    for (int64_t top = begin - 2 * DAWN_GROUP; top < to; top += DAWN_GROUP) {
      for (; prepared < smaller(top + DAWN_GROUP + 3, height); ++prepared) prepare(prepared);
      if (top + 2 + DAWN_GROUP > 0 && top + 2 < height) first_rows(top + 2);
      if (top < begin - DAWN_GROUP) continue;
      if (top + 1 + DAWN_GROUP > 0 && top + 1 < height) second_rows(top + 1);
      if (top < begin) continue;
      last_rows(top);
      for (int64_t r = top < from ? from : top; r < smaller(top + DAWN_GROUP, to); ++r) emit(r);
    }
  }

  // The denoised means of row r: those of the level below, and of the band what is no noise.
  void weigh(const DawnPlanes& clean, int64_t r, int c, float* to) const {
    dawn_enlarge(clean.row(c, r / 2), clean.row(c, dawn_far(r, clean.height)), 0, clean.width, to);
    for (int64_t at = 0; at < width; at += LANES<float>) {
      const f32v band = load<f32v>(bands.row(c, r) + at), weight = load<f32v>(weights.row(c, r) + at);
      store(to + at, load<f32v>(to + at) + weight * band, false);
    }
    dawn_extend(to, width);
  }
};

// Rows of the quarter or the eighth: their denoised means, and what the level above gets to know.
template <int LEVEL>
static void dawn_weigh_rows(const DawnTask& task, int64_t from, int64_t to) {
  const int64_t floats = DawnLevel<LEVEL>::floats(task.mean[LEVEL - 1].width);
  float* next = static_cast<float*>(scratch(floats * sizeof(float)));
  const DawnLevel<LEVEL> level(task, next);
  const DawnPlanes& clean = LEVEL == 3 ? task.mean[3] : task.clean[LEVEL - 1];
  // of the network above, behind its first convolution
  const float* above = task.network.weights + DAWN_KERNEL * dawn_inputs(LEVEL - 1) * DAWN_WIDTH;
  for (int other = 1; other < LEVEL - 1; ++other) above += dawn_weights(other);
  level.run(from, to, [&](int64_t r) {
    for (int c = 0; c < 3; ++c) level.weigh(clean, r, c, task.clean[LEVEL - 2].row(c, r));
    const float* rows[DAWN_WIDTH];
    for (int i = 0; i < DAWN_WIDTH; ++i) rows[i] = level.second.row(i, r);
    dawn_mixture<DAWN_WIDTH>(rows, DAWN_WIDTH, above, level.width, [&](int o, int64_t w, f32v v) {
      store(task.found[LEVEL - 2].row(o, r) + w, v, false);
    });
  });
}

// Rows of means, of those of the level above.
template <int LEVEL>
static void dawn_coarser_rows(const DawnTask& task, int64_t from, int64_t to) {
  const DawnPlanes &source = task.mean[LEVEL - 1], &target = task.mean[LEVEL];
  for (int64_t r = from; r < to; ++r) {
    for (int c = 0; c < 3; ++c) {
      dawn_reduce(source.row(c, 2 * r), source.row(c, 2 * r + 1), target.width, target.row(c, r));
      dawn_extend(target.row(c, r), target.width);
    }
  }
}
