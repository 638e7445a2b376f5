// The loops of what dawn knows of a whole picture. Included once for each instruction set, inside that set's
// namespace, after dawn_rows_loops.h.

// Rows of the thumbnail of all images: each the mean of its share of the rows and columns.
static void dawn_thumbnail_rows(const DawnThumbnail& thumbnail, int64_t from, int64_t to) {
  constexpr int64_t ROWS = DAWN_THUMB_ROWS, COLUMNS = DAWN_THUMB_COLUMNS;
  const int64_t height = thumbnail.sizes[2], width = thumbnail.sizes[3];
  const int64_t pitch = rounded_up(width, 2 * LANES<float>);
  float* const start = static_cast<float*>(scratch(6 * pitch * sizeof(float)));
  float* const x[3] = {start, start + pitch, start + 2 * pitch};
  float* const sums = start + 3 * pitch;
  // how much of pixel p lies in the part of `size` pixels that begins at cell * size / cells
  const auto share = [](int64_t p, int64_t cell, int64_t size, int64_t cells) {
    const int64_t begin = std::max(cell * size, p * cells), end = smaller((cell + 1) * size, (p + 1) * cells);
    return float(end - begin) / float(cells);
  };
  for (int64_t unit = from; unit < to; ++unit) {
    const int64_t b = unit / ROWS, cell = unit % ROWS;
    __builtin_memset(sums, 0, 3 * pitch * sizeof(float));
    for (int64_t r = cell * height / ROWS; r < parts((cell + 1) * height, ROWS); ++r) {
      const int64_t* const strides = thumbnail.x.strides;
      pack_rgb(thumbnail.x, b * strides[0] + r * strides[2], width, x);
      const float weight = share(r, cell, height, ROWS);
      for (int c = 0; c < 3; ++c)
        for (int64_t w = 0; w < width; w += LANES<float>)
          store(sums + c * pitch + w, load<f32v>(sums + c * pitch + w) + load<f32v>(x[c] + w) * weight,
                false);
    }
    const float scale = float(ROWS * COLUMNS) / (float(height) * float(width));
    for (int c = 0; c < 3; ++c) {
      for (int64_t column = 0; column < COLUMNS; ++column) {
        float sum = 0;
        for (int64_t w = column * width / COLUMNS; w < parts((column + 1) * width, COLUMNS); ++w)
          sum += sums[c * pitch + w] * share(w, column, width, COLUMNS);
        thumbnail.out[((b * 3 + c) * ROWS + cell) * COLUMNS + column] = sum * scale;
      }
    }
  }
}

// Magnitudes of the diagonal Haar coefficients at rows of places of all images: of 2 x 2 pixels, and of the
// means of 2 x 2 of them.
static void dawn_measure_rows(const DawnNoise& noise, int64_t from, int64_t to) {
  constexpr int64_t PLACES = DAWN_NOISE_COLUMNS, ALL = DAWN_NOISE_ROWS * PLACES, PIXELS = 4 * PLACES;
  const int64_t height = noise.sizes[2], width = noise.sizes[3];
  const int64_t* const strides = noise.x.strides;
  // luma, blueness and redness of four rows of four pixels a place, and whole vectors behind them
  float x[3][PIXELS + LANES<float>], ycc[3][4][PIXELS];
  float* const colours[3] = {x[noise.bgr ? 2 : 0], x[1], x[noise.bgr ? 0 : 2]};
  float* const ordered[3] = {x[0], x[1], x[2]};
  for (int64_t unit = from; unit < to; ++unit) {
    const int64_t b = unit / DAWN_NOISE_ROWS, row = unit % DAWN_NOISE_ROWS;
    for (int64_t k = 0; k < 4; ++k) {
      const int64_t line = smaller(row * height / DAWN_NOISE_ROWS + k, height - 1);
      for (int64_t place = 0; place < PLACES; ++place) {
        const int64_t w = place * width / PLACES, count = smaller(4, width - w);
        float four[3][LANES<float>];
        float* const into[3] = {four[0], four[1], four[2]};
        pack_rgb(noise.x, b * strides[0] + line * strides[2] + w * strides[3], count, into);
        for (int c = 0; c < 3; ++c)
          for (int64_t i = 0; i < 4; ++i) colours[c][4 * place + i] = four[c][smaller(i, count - 1)];
      }
      for (int64_t at = 0; at < PIXELS; at += LANES<float>) {
        const DawnColour colour = dawn_to_ycc(DawnPixels::scaled(ordered, at, noise.means[b]));
        for (int c = 0; c < 3; ++c) store(ycc[c][k] + at, colour.v[c], false);
      }
    }
    for (int c = 0; c < 3; ++c) {
      float* const fine = noise.magnitudes + (b * DAWN_NOISES + c) * ALL + row * PLACES;
      for (int64_t place = 0; place < PLACES; ++place) {
        const auto at = [&](int64_t r, int64_t w) { return ycc[c][r][4 * place + w]; };
        const auto mean = [&](int64_t r, int64_t w) {
          return (at(r, w) + at(r, w + 1) + at(r + 1, w) + at(r + 1, w + 1)) * 0.25f;
        };
        fine[place] = std::fabs(at(0, 0) - at(0, 1) - at(1, 0) + at(1, 1)) * 0.5f;
        fine[3 * ALL + place] = std::fabs(mean(0, 0) - mean(0, 2) - mean(2, 0) + mean(2, 2));
      }
    }
  }
}

// Means of the magnitudes that edges count little in: each round cuts them to what the one before took.
static void dawn_level_planes(const DawnNoise& noise, int64_t from, int64_t to) {
  constexpr int64_t ALL = DAWN_NOISE_ROWS * DAWN_NOISE_COLUMNS;
  for (int64_t plane = from; plane < to; ++plane) {
    const float* const magnitudes = noise.magnitudes + plane * ALL;
    f32v most = broadcast<f32v>(__builtin_inff());
    for (const float next : {1.0f, 1.5f, 0.0f}) {
      // sixteen sums for each instruction set, so that all round alike
      constexpr int SUMS = 16, N = LANES<float>;
      float sums[SUMS] = {};
      for (int64_t at = 0; at < ALL; at += SUMS)
        for (int i = 0; i < SUMS; i += N)
          store(sums + i, load<f32v>(sums + i) + Bounds::at_most(load<f32v>(magnitudes + at + i), most),
                false);
      float sum = 0;
      for (const float some : sums) sum += some;
      noise.out[plane] = sum / ALL;
      most = broadcast<f32v>(next * noise.out[plane]);
    }
  }
}

DawnLoops dawn_loops() {
  return {dawn_halve_rows,     {dawn_coarser_rows<1>, dawn_coarser_rows<2>, dawn_coarser_rows<3>},
          dawn_weigh_rows<2>,  dawn_weigh_rows<3>,
          dawn_finish_rows,    dawn_brighten_rows,
          dawn_thumbnail_rows, dawn_measure_rows,
          dawn_level_planes};
}
