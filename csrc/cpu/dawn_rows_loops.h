// The loops of dawn by rows: those of its levels, and those that touch the image, which make v, the finest
// band, and the curve from the grid. Included once for each instruction set, inside that set's namespace,
// after the loops of its levels.

// Rows of the quarter or the eighth: their denoised means, and what the level above gets to know.
template <int LEVEL>
static void dawn_weigh_rows(const DawnTask& task, int64_t from, int64_t to) {
  const int64_t floats = DawnLevel<LEVEL>::floats(task.mean[LEVEL - 1].width);
  float* next = static_cast<float*>(scratch(floats * sizeof(float)));
  const DawnLevel<LEVEL> level(task, next);
  const DawnPlanes& clean = LEVEL == 3 ? task.mean[3] : task.clean[LEVEL - 1];
  level.run(level, from, to, [&](int64_t r) {
    for (int c = 0; c < 3; ++c) level.weigh(clean, r, c, task.clean[LEVEL - 2].row(c, r));
    level.tell(r);
  });
  level.rest();
}

constexpr float DAWN_BRIGHTEST = 0.995f;

struct DawnColour {
  f32v v[3];
};

// One over each: one division, which takes as long as sixteen products, in the place of three.
FASTLLIE_INLINE DawnColour dawn_reciprocals(const DawnColour& of) {
  const f32v* const v = of.v;
  const f32v two = v[0] * v[1], all = dawn_reciprocal(two * v[2]), last = all * v[2];
  return {{last * v[1], last * v[0], all * two}};
}

// Luma, blueness and redness, and back.
FASTLLIE_INLINE DawnColour dawn_to_ycc(const DawnColour& rgb) {
  const f32v* const v = rgb.v;
  return {{v[0] * 0.299f + v[1] * 0.587f + v[2] * 0.114f, v[0] * -0.1687f + v[1] * -0.3313f + v[2] * 0.5f,
           v[0] * 0.5f + v[1] * -0.4187f + v[2] * -0.0813f}};
}
FASTLLIE_INLINE DawnColour dawn_to_rgb(const DawnColour& ycc) {
  const f32v* const v = ycc.v;
  return {{v[0] + v[1] * -0.000036820f + v[2] * 1.401987577f,
           v[0] + v[1] * -0.344113281f + v[2] * -0.714103821f,
           v[0] + v[1] * 1.771978117f + v[2] * -0.000134583f}};
}

// The pixels of the image from a column on, which goes on with its ends, and those of the result.
struct DawnPixels {
  const DawnTask& task;
  float mean;

  explicit DawnPixels(const DawnTask& task) : task(task), mean(task.network.means[task.image]) {}

  void read(int64_t r, int64_t from, int64_t count, float* const (&to)[3]) const {
    const Dawn& network = task.network;
    const int64_t* const strides = network.x.strides;
    const int64_t line = smaller(r, network.sizes[2] - 1), there = smaller(count, network.sizes[3] - from);
    float* const colours[3] = {to[network.bgr ? 2 : 0], to[1], to[network.bgr ? 0 : 2]};
    pack_rgb(network.x, task.image * strides[0] + line * strides[2] + from * strides[3], there, colours);
    for (int c = 0; c < 3; ++c)
      for (int64_t w = there; w < count; ++w) to[c][w] = to[c][there - 1];
  }
  // Asks for a vector of pixels that a later loop reads: at the end of a row the processor sees nothing
  // coming.
  FASTLLIE_INLINE void ask(const DawnPixels& pixels, int64_t r, int64_t w) {
    const Dawn& network = pixels.task.network;
    if (r >= network.sizes[2]) return;
    const int64_t* const strides = network.x.strides;
    const char* const data = static_cast<const char*>(network.x.data);
    const int64_t at = pixels.task.image * strides[0] + r * strides[2] + w * strides[3];
    for (int c = 0; c < 3; ++c) __builtin_prefetch(data + (at + c * strides[1]) * pixels.task.bytes);
  }
  // A whole row back to the result.
  void write(float* const (&from)[3], int64_t r) const {
    const Dawn& network = task.network;
    const int64_t* const strides = network.out.strides;
    const float* const colours[3] = {from[network.bgr ? 2 : 0], from[1], from[network.bgr ? 0 : 2]};
    unpack_rgb(colours, network.out, task.image * strides[0] + r * strides[2], network.sizes[3], task.stream);
  }
  FASTLLIE_INLINE DawnColour scaled(float* const (&x)[3], int64_t at, float mean) {
    DawnColour colour, sums;
    for (int c = 0; c < 3; ++c) {
      colour.v[c] = load<f32v>(x[c] + at);
      sums.v[c] = colour.v[c] + mean;
    }
    const DawnColour shares = dawn_reciprocals(sums);
    for (int c = 0; c < 3; ++c) colour.v[c] *= shares.v[c];
    return colour;
  }
};

// Rows at half size: means of luma and colours, and of the finest band's magnitudes.
static void dawn_halve_rows(const DawnTask& task, int64_t from, int64_t to) {
  const DawnPixels reader(task);
  const DawnPlanes &means = task.mean[0], &finest = task.finest;
  const int64_t height = means.height, width = task.width, pitch = DawnPlanes::pitch_of(width);
  float* next = static_cast<float*>(scratch((3 + 4 * 6 + 1 + 2) * pitch * sizeof(float) +
                                            DawnRing::floats(3, means.width) * sizeof(float)));
  float* const x[3] = {next, next + pitch, next + 2 * pitch};
  next += 3 * pitch;
  const auto luma = [&, start = next](int c, int64_t r) { return start + ((r & 7) * 3 + c) * pitch; };
  next += 4 * 6 * pitch;
  float* const enlarged = next;
  float* const magnitudes[2] = {next + pitch, next + 2 * pitch};
  next += 3 * pitch;
  // a band's first and last row need means that are another band's
  const DawnRing halves(next, 3, means.width);
  const auto halve = [&](int64_t r) {
    for (int64_t line = 2 * r; line < 2 * r + 2; ++line) {
      reader.read(line, 0, width, x);
      for (int64_t at = 0; at < width; at += LANES<float>) {
        DawnPixels::ask(reader, line + 1, at);
        const DawnColour ycc = dawn_to_ycc(DawnPixels::scaled(x, at, reader.mean));
        for (int c = 0; c < 3; ++c) store(luma(c, line) + at, ycc.v[c], false);
      }
    }
    for (int c = 0; c < 3; ++c) {
      float* const row = halves.row(c, r);
      dawn_reduce(luma(c, 2 * r), luma(c, 2 * r + 1), means.width, row);
      dawn_extend(row, means.width);
      if (r >= from && r < to)
        __builtin_memcpy(means.row(c, r) - DawnPlanes::BEFORE, row - DawnPlanes::BEFORE,
                         means.pitch * sizeof(float));
    }
  };
  int64_t halved = from ? from - 1 : 0;
  for (int64_t r = from; r < to; ++r) {
    for (; halved < smaller(r + 2, height); ++halved) halve(halved);
    for (int c = 0; c < 3; ++c) {
      for (int k = 0; k < 2; ++k) {
        dawn_enlarge(halves.row(c, r), halves.row(c, dawn_far(2 * r + k, height)), 0, means.width, enlarged);
        dawn_band(luma(c, 2 * r + k), enlarged, width, task.gains(0)[c], nullptr, magnitudes[k]);
      }
      dawn_reduce(magnitudes[0], magnitudes[1], means.width, finest.row(c, r));
      dawn_extend(finest.row(c, r), means.width);
    }
  }
}

// Of the sixteen floats at `table` in each lane that of its index.
FASTLLIE_INLINE f32v dawn_chosen(const float* table, i32v index) {
#if defined(FASTLLIE_AVX512)
  return (f32v)_mm512_maskz_permutexvar_ps(0xffff, (__m512i)index, (__m512)load<f32v>(table));
#else
  f32v v;
  for (int i = 0; i < LANES<float>; ++i) v[i] = table[index[i] & 15];
  return v;
#endif
}

// Looks up the grid along a row of the picture, and brightens.
struct DawnCurves {
  static constexpr int64_t CELLS = DAWN_PLANES * DAWN_COLUMNS * DAWN_LUMAS;
  const DawnTask& task;
  float mean;
  float grid[DAWN_ROWS][CELLS];  // of each row the planes, their columns and their lumas
  // of the grid at this row: the lumas of a column, and how much more they are at the next
  float stripes[DAWN_PLANES][DAWN_COLUMNS][2 * DAWN_LUMAS];

  explicit DawnCurves(const DawnTask& task) : task(task), mean(task.network.means[task.image]) {
    const float* from = task.network.grid + task.image * DAWN_ROWS * CELLS;
    for (int p = 0; p < DAWN_PLANES; ++p)
      for (int l = 0; l < DAWN_LUMAS; ++l)
        for (int r = 0; r < DAWN_ROWS; ++r)
          for (int w = 0; w < DAWN_COLUMNS; ++w) grid[r][(p * DAWN_COLUMNS + w) * DAWN_LUMAS + l] = *from++;
  }

  // Of the row `r` of the image.
  void look_up(int64_t r) {
    const Dawn& network = task.network;
    const float at =
        (float(network.place[0] + r) + 0.5f) * (float(DAWN_ROWS) / float(network.whole[0])) - 0.5f;
    const float place = at < 0 ? 0 : at > DAWN_ROWS - 1 ? float(DAWN_ROWS - 1) : at;
    const int64_t row = smaller(int64_t(place), DAWN_ROWS - 2);
    const float share = place - float(row);
    float between[CELLS + DAWN_LUMAS] = {};
    for (int64_t i = 0; i < CELLS; ++i) between[i] = grid[row][i] * (1 - share) + grid[row + 1][i] * share;
    for (int p = 0; p < DAWN_PLANES; ++p)
      for (int w = 0; w < DAWN_COLUMNS; ++w) {
        const float* const here = between + (p * DAWN_COLUMNS + w) * DAWN_LUMAS;
        for (int l = 0; l < DAWN_LUMAS; ++l) {
          stripes[p][w][l] = here[l];
          stripes[p][w][DAWN_LUMAS + l] = here[DAWN_LUMAS + l] - here[l];
        }
      }
  }

  // The first column of the image, from `from` on, whose place lies beyond the middle of `cell`.
  int64_t end_of(int64_t cell, int64_t from) const {
    if (cell + 1 >= DAWN_COLUMNS - 1) return task.network.sizes[3];
    const int64_t middle = ((2 * cell + 3) * task.network.whole[1] + DAWN_COLUMNS - 1) / (2 * DAWN_COLUMNS);
    const int64_t end = middle - task.network.place[1];
    return end < from ? from : smaller(end, task.network.sizes[3]);
  }

  // `count` pixels in v, from column `w` of the image on, all between the middles of the same two cells, to
  // the result; `alpha` is room for as many. Whole vectors are read and written. In two loops: in one the
  // steps of a vector wait for each other, and no processor looks as far ahead as the next vector.
  void brighten_piece(float* const (&v)[3], int64_t cell, int64_t w, int64_t count, float* const (&alpha)[3],
                      float* const (&out)[3]) const {
    for (int64_t at = 0; at < count; at += LANES<float>) light(v, at, cell, w + at, alpha, out);
    for (int64_t at = 0; at < count; at += LANES<float>) {
      f32v y[3], steps[3];
      for (int c = 0; c < 3; ++c) {
        y[c] = load<f32v>(out[c] + at);
        steps[c] = load<f32v>(alpha[c] + at);
      }
      brighten(y, steps);
      for (int c = 0; c < 3; ++c) store(out[c] + at, y[c], false);
    }
  }

  // Of a vector of pixels the light without its black, and alpha.
  void light(float* const (&v)[3], int64_t at, int64_t cell, int64_t w, float* const (&alpha)[3],
             float* const (&out)[3]) const {
    const Dawn& network = task.network;
    const f32v zero{}, one = broadcast<f32v>(1.0f);
    f32v columns;
    for (int i = 0; i < LANES<float>; ++i) columns[i] = float(i);
    f32v share =
        (columns + (float(network.place[1] + w) + 0.5f)) * (float(DAWN_COLUMNS) / float(network.whole[1])) -
        0.5f;
    share = Bounds::at_most(Bounds::at_least(share, zero), broadcast<f32v>(float(DAWN_COLUMNS - 1))) -
            float(cell);
    const f32v pixel[3] = {load<f32v>(v[0] + at), load<f32v>(v[1] + at), load<f32v>(v[2] + at)};
    const f32v luma = pixel[0] * 0.299f + pixel[1] * 0.587f + pixel[2] * 0.114f;
    const f32v height = Bounds::at_most(Bounds::at_least(luma, zero), one) * float(DAWN_LUMAS - 1);
    const i32v below =
        __builtin_convertvector(Bounds::at_most(height, broadcast<f32v>(float(DAWN_LUMAS - 2))), i32v);
    const f32v above = height - __builtin_convertvector(below, f32v);
    f32v values[DAWN_PLANES];
#pragma GCC unroll 6
    for (int p = 0; p < DAWN_PLANES; ++p) {
      const float* const table = stripes[p][cell];
      f32v ends[2];
      for (int k = 0; k < 2; ++k)
        ends[k] = dawn_chosen(table, below + k) + share * dawn_chosen(table, below + k + int(DAWN_LUMAS));
      values[p] = ends[0] + above * (ends[1] - ends[0]);
    }
    // (light - black) / (1 - black) of light = v mean / (1 - v): light beyond one ends at one as well
    DawnColour y, rests;
    for (int c = 0; c < 3; ++c) {
      const f32v black = values[3 + c], rest = one - pixel[c];
      y.v[c] = pixel[c] * mean - black * rest;
      rests.v[c] = rest * (one - black);
      store(alpha[c] + at, values[c], false);
    }
    const DawnColour scales = dawn_reciprocals(rests);
    for (int c = 0; c < 3; ++c)
      store(out[c] + at, Bounds::at_most(Bounds::at_least(y.v[c] * scales.v[c], zero), one), false);
  }
};

// Rows of the image, where nothing is denoised: clamped as where something is.
static void dawn_brighten_rows(const DawnTask& task, int64_t from, int64_t to) {
  const Dawn& network = task.network;
  // a piece may end with a vector beyond the row
  const int64_t width = network.sizes[3], pitch = rounded_up(width, 16) + 2 * LANES<float>;
  const DawnPixels reader(task);
  DawnCurves curves(task);
  float* const start = static_cast<float*>(scratch(9 * pitch * sizeof(float)));
  float* const x[3] = {start, start + pitch, start + 2 * pitch};
  float* const out[3] = {start + 3 * pitch, start + 4 * pitch, start + 5 * pitch};
  float* const alpha[3] = {start + 6 * pitch, start + 7 * pitch, start + 8 * pitch};
  for (int64_t r = from; r < to; ++r) {
    curves.look_up(r);
    int64_t w = 0;
    for (int64_t cell = 0; w < width; ++cell) {
      const int64_t end = curves.end_of(cell, w), count = end - w;
      if (!count) continue;
      reader.read(r, w, count, x);
      for (int64_t at = 0; at < count; at += LANES<float>) {
        const DawnColour v = DawnPixels::scaled(x, at, reader.mean);
        for (int c = 0; c < 3; ++c) store(x[c] + at, v.v[c], false);
      }
      curves.brighten_piece(x, cell, w, count, alpha, {out[0] + w, out[1] + w, out[2] + w});
      w = end;
    }
    reader.write(out, r);
  }
  finish_streams();
}

// Rows at half size, to the result: the network of the finest two bands, and the image.
struct DawnFinish {
  static constexpr int PARTS = 9;  // denoised means, weights of the finest band, means
  const DawnTask& task;
  const DawnLevel<1>& level;
  const DawnPixels reader;
  DawnCurves curves;
  DawnRing clean;
  int64_t pitch;
  float *enlarged, *x[3], *out[3];

  static int64_t floats(const DawnTask& task) {
    return DawnRing::floats(3, task.mean[0].width) + (PARTS + 6) * DawnPlanes::pitch_of(task.width);
  }
  DawnFinish(const DawnTask& task, const DawnLevel<1>& level, float*& next)
      : task(task),
        level(level),
        reader(task),
        curves(task),
        clean(next, 3, level.width),
        pitch(DawnPlanes::pitch_of(task.width)),
        enlarged(next) {
    for (int c = 0; c < 3; ++c) {
      x[c] = enlarged + (PARTS + c) * pitch;
      out[c] = x[c] + 3 * pitch;
    }
  }

  void keep_row(int64_t r) const {
    for (int c = 0; c < 3; ++c) {
      level.weigh(task.clean[0], r, c, clean.row(c, r));
      dawn_extend(level.weights.row(3 + c, r), level.width);
    }
  }

  // The two rows of the image that row r at half size is the mean of.
  void finish(int64_t r) {
    for (int64_t line = 2 * r; line < smaller(2 * r + 2, task.network.sizes[2]); ++line) {
      curves.look_up(line);
      int64_t w = 0;
      for (int64_t cell = 0; w < task.network.sizes[3]; ++cell) {
        const int64_t end = curves.end_of(cell, w);
        if (end > w) piece(line, cell, w, end - w);
        w = end;
      }
      reader.write(out, line);
    }
  }

  void piece(int64_t line, int64_t cell, int64_t w, int64_t count) {
    const int64_t near = line / 2, far = dawn_far(line, level.height), half = w / 2;
    const int64_t halves = (w + count + 1) / 2 - half;
    for (int c = 0; c < 3; ++c) {
      dawn_enlarge(clean.row(c, near), clean.row(c, far), half, halves, enlarged + c * pitch);
      dawn_enlarge(level.weights.row(3 + c, near), level.weights.row(3 + c, far), half, halves,
                   enlarged + (3 + c) * pitch);
      dawn_enlarge(level.means.row(c, near), level.means.row(c, far), half, halves,
                   enlarged + (6 + c) * pitch);
    }
    reader.read(line, w, count, x);
    const float* const parts = enlarged + w % 2;
    const f32v zero{}, most = broadcast<f32v>(DAWN_BRIGHTEST);
    for (int64_t at = 0; at < count; at += LANES<float>) {
      DawnPixels::ask(reader, line + 1, w + at);
      DawnColour ycc = dawn_to_ycc(DawnPixels::scaled(x, at, reader.mean));
      for (int c = 0; c < 3; ++c) {
        const auto part = [&](int p) { return load<f32v>(parts + (3 * p + c) * pitch + at); };
        ycc.v[c] = part(0) + part(1) * (ycc.v[c] - part(2));
      }
      DawnColour v = dawn_to_rgb(ycc);
      for (int c = 0; c < 3; ++c)
        store(x[c] + at, Bounds::at_most(Bounds::at_least(v.v[c], zero), most), false);
    }
    float* const alpha[3] = {enlarged, enlarged + pitch, enlarged + 2 * pitch};
    curves.brighten_piece(x, cell, w, count, alpha, {out[0] + w, out[1] + w, out[2] + w});
  }
};

static void dawn_finish_rows(const DawnTask& task, int64_t from, int64_t to) {
  const int64_t floats = DawnLevel<1>::floats(task.mean[0].width) + DawnFinish::floats(task);
  float* next = static_cast<float*>(scratch(floats * sizeof(float)));
  const DawnLevel<1> level(task, next);
  DawnFinish rows(task, level, next);
  const int64_t last = level.height - 1;
  level.run(level, from ? from - 1 : 0, smaller(to + 1, level.height), [&](int64_t r) {
    rows.keep_row(r);
    if (r > from) rows.finish(r - 1);
  });
  if (to > last) rows.finish(last);
  level.rest();
  finish_streams();
}
