// The loops of the pyramid of dawn's denoiser, and what the networks of its levels have in common. Included
// once for each instruction set, inside that set's namespace.
//
// Planes lie one after the other and vectors along their rows. Of every layer only the rows that the next one
// still reads are kept.

constexpr int64_t DAWN_RING = 8;   // rows kept; a power of two
constexpr int64_t DAWN_LINE = 16;  // floats of a line of the caches
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

// One over v. Beside products of bfloat16 to the last bits, without a division.
FASTLLIE_INLINE f32v dawn_reciprocal(f32v v) {
#if defined(FASTLLIE_TILES)
  const f32v near = (f32v)_mm512_maskz_rcp14_ps(0xffff, (__m512)v);
  return near * (2.0f - v * near);
#else
  return broadcast<f32v>(1.0f) / v;
#endif
}

FASTLLIE_INLINE f32v dawn_leaky(f32v v) { return Bounds::at_least(v, v * DAWN_SLOPE); }

// Of a level over a band of its rows all but the arithmetic of its network: in groups of GROUP rows.
template <int LEVEL, int GROUP>
struct DawnBand {
  static constexpr int INPUTS = dawn_inputs(LEVEL), OUTPUTS = dawn_outputs(LEVEL), WIDTH = DAWN_WIDTH;
  static constexpr int REACH = GROUP + 2;  // rows that a group is made of
  static constexpr bool BELOW = LEVEL + 1 < DAWN_LEVELS;
  static constexpr int64_t BIASES = 6 * WIDTH + 6 + 3 + 3;

  const DawnTask& task;
  const DawnPlanes &means, &coarser;
  int64_t height, width;
  DawnRing bands, weights;
  float* enlarged;
  const float* biases;

  static int64_t floats(int64_t width) {
    return DawnRing::floats(3 + OUTPUTS, width) + DawnPlanes::pitch_of(width);
  }
  DawnBand(const DawnTask& task, float*& next)
      : task(task),
        means(task.mean[LEVEL - 1]),
        coarser(task.mean[LEVEL]),
        height(means.height),
        width(means.width),
        bands(next, 3, width),
        weights(next, OUTPUTS, width),
        enlarged(next),
        biases(task.network.biases + task.image * BIASES) {
    next += DawnPlanes::pitch_of(width);
    for (int level = 1; level < LEVEL; ++level) biases += 2 * WIDTH + dawn_outputs(level);
  }

  int64_t within(int64_t r) const { return r < 0 ? 0 : smaller(r, height - 1); }

  // Band and magnitudes of row r.
  void prepare(int64_t r, float* const (&magnitudes)[3]) const {
    for (int c = 0; c < 3; ++c) {
      dawn_enlarge(coarser.row(c, r / 2), coarser.row(c, dawn_far(r, coarser.height)), 0, coarser.width,
                   enlarged);
      dawn_band(means.row(c, r), enlarged, width, task.gains(LEVEL)[c], bands.row(c, r), magnitudes[c]);
      dawn_extend(magnitudes[c], width);
    }
  }

  // Calls body(row, r) for those of the rows from `top` on that the picture has.
  template <class Body>
  void of_group(int64_t top, const Body& body) const {
    for (int64_t r = top < 0 ? 0 : top; r < smaller(top + GROUP, height); ++r) body(int(r - top), r);
  }

  // Calls emit(r) for rows `from` to `to` when their weights and their band are there. Which rows come
  // together is the same wherever a band begins, and so are the bits. Each layer is a row ahead of the next.
  template <class Level, class Emit>
  static void run(const Level& level, int64_t from, int64_t to, const Emit& emit) {
    const int64_t begin = from / GROUP * GROUP, height = level.height;
    int64_t prepared = level.within(begin - 2 * GROUP + 1);
    for (int64_t top = begin - 2 * GROUP; top < to; top += GROUP) {
      for (; prepared < smaller(top + GROUP + 3, height); ++prepared) level.prepare_row(prepared);
      if (top + 2 + GROUP > 0 && top + 2 < height) level.first_rows(top + 2);
      if (top < begin - GROUP) continue;
      if (top + 1 + GROUP > 0 && top + 1 < height) level.second_rows(top + 1);
      if (top < begin) continue;
      level.last_rows(top);
      for (int64_t r = top < from ? from : top; r < smaller(top + GROUP, to); ++r) emit(r);
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
