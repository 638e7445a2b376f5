// The loops of dawn's denoiser: its pyramid and the networks of its levels. Included once for each
// instruction set, inside that set's namespace.
//
// Planes lie one after the other and vectors along their rows, because there are few channels: each weight is
// broadcast to several vectors of pixels. Of every layer only the rows that the next one still reads are
// kept.

constexpr int64_t DAWN_RING = 4;  // rows kept; a power of two
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

// SUMS outputs of a convolution at VECTORS vectors of pixels, TAPS wide, over `lines` rows of its inputs:
// three of each for a 3 x 3 convolution. Not inlined: beside other code GCC would keep the sums in memory.
template <int SUMS, int VECTORS, int TAPS>
static __attribute__((noinline)) void dawn_products(const float* const* rows, int64_t lines, int64_t w,
                                                    const float* weights, int64_t outputs,
                                                    f32v (&sums)[SUMS][VECTORS]) {
  f32v own[SUMS][VECTORS];
#pragma GCC unroll 12
  for (int s = 0; s < SUMS; ++s)
#pragma GCC unroll 4
    for (int n = 0; n < VECTORS; ++n) own[s][n] = sums[s][n];
  for (int64_t line = 0; line < lines; ++line) {
    const float* const row = rows[line] + w - TAPS / 2;
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

// A row of a convolution with OUTPUTS outputs. begin(output, w) is a vector to begin with, and
// end(output, w, sum) takes the result.
template <int OUTPUTS, int TAPS, class Begin, class End>
FASTLLIE_INLINE void dawn_convolution(const float* const* rows, int64_t lines, const float* weights,
                                      int64_t width, const Begin& begin, const End& end) {
#if defined(FASTLLIE_AVX512)
  constexpr int SUMS = OUTPUTS, VECTORS = OUTPUTS == 12 ? 2 : 4;  // 24 of 32 registers, or 12
#else
  constexpr int SUMS = OUTPUTS == 12 ? 4 : 3, VECTORS = OUTPUTS == 12 ? 2 : 4;  // 8 or 12 of 16
#endif
  static_assert(OUTPUTS % SUMS == 0 && DawnPlanes::WHOLE % (VECTORS * LANES<float>) == 0);
  for (int64_t w = 0; w < width; w += VECTORS * LANES<float>) {
    for (int o = 0; o < OUTPUTS; o += SUMS) {
      f32v sums[SUMS][VECTORS];
#pragma GCC unroll 12
      for (int s = 0; s < SUMS; ++s)
#pragma GCC unroll 4
        for (int n = 0; n < VECTORS; ++n) sums[s][n] = begin(o + s, w + n * LANES<float>);
      dawn_products<SUMS, VECTORS, TAPS>(rows, lines, w, weights + o, OUTPUTS, sums);
#pragma GCC unroll 12
      for (int s = 0; s < SUMS; ++s)
#pragma GCC unroll 4
        for (int n = 0; n < VECTORS; ++n) end(o + s, w + n * LANES<float>, sums[s][n]);
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
  DawnRing bands, magnitudes, first, second, below, weights;
  float* enlarged;
  const float *first_weights, *below_weights, *second_weights, *last_weights, *biases;

  static int64_t floats(int64_t width) {
    return DawnRing::floats(2 * 3 + 3 * WIDTH + OUTPUTS, width) + DawnPlanes::pitch_of(width);
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
        below(next, WIDTH, width),
        weights(next, OUTPUTS, width),
        enlarged(next) {
    next += DawnPlanes::pitch_of(width);
    first_weights = task.network.weights;
    biases = task.network.biases + task.image * DAWN_BIASES;
    for (int level = 1; level < LEVEL; ++level) {
      first_weights += dawn_weights(level);
      biases += 2 * WIDTH + dawn_outputs(level);
    }
    below_weights = first_weights + 9 * INPUTS * WIDTH;
    second_weights = below_weights + (BELOW ? WIDTH * WIDTH : 0);
    last_weights = second_weights + 9 * WIDTH * WIDTH;
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

  // What the level below has found, each pixel twice.
  void repeat(int64_t r) const {
    constexpr int N = LANES<float>;
    constexpr std::make_index_sequence<N> lanes{};
    for (int o = 0; o < WIDTH; ++o) {
      const float* const from = task.found[LEVEL - 1].row(o, r / 2);
      float* const to = below.row(o, r);
      for (int64_t at = 0; 2 * at < width; at += N) {
        const f32v v = load<f32v>(from + at);
        store(to + 2 * at, shuffle<DawnTurns<N, 0>>(v, v, lanes), false);
        store(to + 2 * at + N, shuffle<DawnTurns<N, 1>>(v, v, lanes), false);
      }
    }
  }

  void first_row(int64_t r) const {
    const float* rows[3 * INPUTS];
    for (int k = 0; k < 3; ++k) {
      const int64_t line = within(r + k - 1);
      for (int c = 0; c < 3; ++c) {
        rows[3 * c + k] = magnitudes.row(c, line);
        rows[3 * (3 + c) + k] = means.row(c, line);
        if constexpr (LEVEL == 1) rows[3 * (6 + c) + k] = task.finest.row(c, line);
      }
    }
    if constexpr (BELOW) repeat(r);
    dawn_convolution<WIDTH, 3>(
        rows, 3 * INPUTS, first_weights, width,
        [&](int o, int64_t w) {
          f32v v = broadcast<f32v>(biases[o]);
          if constexpr (BELOW) v += load<f32v>(below.row(o, r) + w);
          return v;
        },
        [&](int o, int64_t w, f32v v) { store(first.row(o, r) + w, dawn_leaky(v), false); });
    for (int o = 0; o < WIDTH; ++o) dawn_extend(first.row(o, r), width);
  }

  void second_row(int64_t r) const {
    const float* rows[3 * WIDTH];
    neighbours(first, r, rows);
    dawn_convolution<WIDTH, 3>(
        rows, 3 * WIDTH, second_weights, width,
        [&](int o, int64_t) { return broadcast<f32v>(biases[WIDTH + o]); },
        [&](int o, int64_t w, f32v v) {
          store(second.row(o, r) + w, load<f32v>(first.row(o, r) + w) + dawn_leaky(v), false);
        });
    for (int o = 0; o < WIDTH; ++o) dawn_extend(second.row(o, r), width);
  }

  void last_row(int64_t r) const {
    const float* rows[3 * WIDTH];
    neighbours(second, r, rows);
    const f32v one = broadcast<f32v>(1.0f);
    const float amount = task.network.denoise;
    dawn_convolution<OUTPUTS, 3>(
        rows, 3 * WIDTH, last_weights, width,
        [&](int o, int64_t) { return broadcast<f32v>(biases[2 * WIDTH + o]); },
        [&](int o, int64_t w, f32v v) {
          // 1 - amount (1 - sigmoid(v))
          store(weights.row(o, r) + w, one - amount / (one + exp_of(v, one)), false);
        });
  }

  void neighbours(const DawnRing& ring, int64_t r, const float** rows) const {
    for (int o = 0; o < WIDTH; ++o)
      for (int k = 0; k < 3; ++k) rows[3 * o + k] = ring.row(o, within(r + k - 1));
  }

  // Calls emit(r) for rows `from` to `to` when their weights and their band are there.
  template <class Emit>
  void run(int64_t from, int64_t to, const Emit& emit) const {
    const int64_t first_from = within(from - 2), first_to = smaller(to + 2, height);
    const int64_t second_from = within(from - 1), second_to = smaller(to + 1, height);
    int64_t prepared = within(first_from - 1);
    for (int64_t r = first_from; r < to + 2; ++r) {
      if (r < first_to) {
        for (; prepared < smaller(r + 2, height); ++prepared) prepare(prepared);
        first_row(r);
      }
      if (r - 1 >= second_from && r - 1 < second_to) second_row(r - 1);
      if (r - 2 >= from) {
        last_row(r - 2);
        emit(r - 2);
      }
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
  const float* above = task.network.weights + 9 * dawn_inputs(LEVEL - 1) * DAWN_WIDTH;
  for (int other = 1; other < LEVEL - 1; ++other) above += dawn_weights(other);
  level.run(from, to, [&](int64_t r) {
    for (int c = 0; c < 3; ++c) level.weigh(clean, r, c, task.clean[LEVEL - 2].row(c, r));
    const float* rows[DAWN_WIDTH];
    for (int i = 0; i < DAWN_WIDTH; ++i) rows[i] = level.second.row(i, r);
    dawn_convolution<DAWN_WIDTH, 1>(
        rows, DAWN_WIDTH, above, level.width, [](int, int64_t) { return f32v{}; },
        [&](int o, int64_t w, f32v v) { store(task.found[LEVEL - 2].row(o, r) + w, v, false); });
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
