// The loops of Zero-DCE++'s network. Included once for each instruction set, inside that set's namespace,
// after zerodce_loops.h.
//
// Down a strip of columns each layer follows two rows behind the one before it, and of every layer only the
// rows that others still read are kept. Layer l computes 7 - l pixels more on each side than the last one, so
// that its row and column i are made of rows and columns i to i + 2 of the layer before.

// Rows kept of the image and of layers 1 to 6; the first three are read again as skips
constexpr int64_t ZERODCEPP_KEPT[] = {3, 8, 6, 4, 3, 3, 3};
// Pixels whose depthwise sums are made at once, from the same columns
constexpr int64_t ZERODCEPP_PIXELS = 4;
static_assert(ROW_BLOCK % ZERODCEPP_PIXELS == 0);

// The depthwise sums of 32 channels of `pixels` pixels, rounded up to ZERODCEPP_PIXELS; `depth` from pixel to
// pixel and from tap to tap.
static void depthwise(const float* const (&rows)[3], int64_t pixels, const float* weights, int64_t depth,
                      float* to) {
  for (int c = 0; c < ZERODCE_CHANNELS; c += LANES<float>) {
    f32v w[9];
#pragma GCC unroll 9
    for (int tap = 0; tap < 9; ++tap) w[tap] = load<f32v>(weights + tap * depth + c);
    for (int64_t p = 0; p < pixels; p += ZERODCEPP_PIXELS) {
      f32v sums[ZERODCEPP_PIXELS] = {};
#pragma GCC unroll 3
      for (int ky = 0; ky < 3; ++ky) {
        f32v v[ZERODCEPP_PIXELS + 2];
#pragma GCC unroll 6
        for (int j = 0; j < ZERODCEPP_PIXELS + 2; ++j)
          v[j] = load<f32v>(rows[ky] + (p + j) * ZERODCE_CHANNELS + c);
#pragma GCC unroll 3
        for (int kx = 0; kx < 3; ++kx)
#pragma GCC unroll 4
          for (int i = 0; i < ZERODCEPP_PIXELS; ++i) sums[i] += v[i + kx] * w[3 * ky + kx];
      }
#pragma GCC unroll 4
      for (int i = 0; i < ZERODCEPP_PIXELS; ++i) store(to + (p + i) * depth + c, sums[i], false);
    }
  }
}

// relu(bias + the products of ROWS pixels' depthwise sums) for two vectors of output channels. Not inlined:
// beside other code GCC would keep the sums in memory.
template <int ROWS>
static __attribute__((noinline)) void pointwise(const float* from, int64_t depth, const float* weights,
                                                const float* bias, float* to) {
  f32v sums[ROWS][2];
#pragma GCC unroll 12
  for (int r = 0; r < ROWS; ++r)
    for (int n = 0; n < 2; ++n) sums[r][n] = load<f32v>(bias + n * LANES<float>);
  multiply<ROWS, 2>({from, depth}, weights, depth, sums);
#pragma GCC unroll 12
  for (int r = 0; r < ROWS; ++r)
    for (int n = 0; n < 2; ++n)
      store(to + r * ZERODCE_CHANNELS + n * LANES<float>, Bounds::at_least(sums[r][n], f32v{}), false);
}

struct ZeroDcePPStrip {
  const ZeroDcePPTask& task;
  int64_t columns;                              // of every row that is kept
  ZeroDceRing<float> image;                     // three planes a row
  ZeroDceRing<float> features[ZERODCE_LAYERS];  // of layers 1 to 6
  float *depths, *sums, *planes;
  const float* weights[ZERODCE_LAYERS];
  int64_t b, top, bottom, left, right;

  explicit ZeroDcePPStrip(const ZeroDcePPTask& task) : task(task) {
    // the last vector of pixels fills up what it does not reach
    columns = rounded_up(task.strip_columns + 2 * ZERODCE_LAYERS + 16, 16);
    int64_t floats =
        ROW_BLOCK * (2 * ZERODCE_CHANNELS + OUTPUT_BLOCK) + (ZERODCEPP_KEPT[0] + 2) * 3 * columns;
    for (int l = 1; l < ZERODCE_LAYERS; ++l) floats += ZERODCEPP_KEPT[l] * columns * ZERODCE_CHANNELS;
    float* next = static_cast<float*>(scratch(floats * sizeof(float)));
    // columns beyond a narrow strip are computed with: not slowly, of what some other kernel left
    __builtin_memset(next, 0, floats * sizeof(float));
    for (int l = 1; l < ZERODCE_LAYERS; ++l) {
      features[l] = {next, ZERODCEPP_KEPT[l], columns * ZERODCE_CHANNELS};
      next += ZERODCEPP_KEPT[l] * columns * ZERODCE_CHANNELS;
    }
    depths = next;
    sums = depths + ROW_BLOCK * 2 * ZERODCE_CHANNELS;
    image = {sums + ROW_BLOCK * OUTPUT_BLOCK, ZERODCEPP_KEPT[0], 3 * columns};
    planes = image.start + ZERODCEPP_KEPT[0] * 3 * columns;
    weights[0] = task.network.weights;
    for (int l = 1; l < ZERODCE_LAYERS; ++l) weights[l] = weights[l - 1] + zerodcepp_weights(depth_of(l));
  }

  // Input channels of layer l.
  static int64_t depth_of(int l) { return l == 1 ? 3 : l < 5 ? ZERODCE_CHANNELS : 2 * ZERODCE_CHANNELS; }
  static int64_t margin_of(int l) { return ZERODCE_LAYERS - l; }
  int64_t rows_of(int l) const { return bottom - top + 2 * margin_of(l); }
  int64_t columns_of(int l) const { return right - left + 2 * margin_of(l); }

  // A row of what the network sees, and what it finds around it.
  void read(int64_t r) const {
    const ZeroDcePP& network = task.network;
    const int64_t around = network.around, h = top - ZERODCE_LAYERS + r;
    float* const row = image.row(r);
    if (network.zeros && (h < 0 || h >= task.height)) {
      __builtin_memset(row, 0, 3 * columns * sizeof(float));
      return;
    }
    const int64_t first = left - ZERODCE_LAYERS, end = right + ZERODCE_LAYERS;
    const int64_t from = first < -around ? -around : first;
    const int64_t to = smaller(end, task.width + around);
    const int64_t line = h < -around ? -around : smaller(h, task.height - 1 + around);
    float* into[3];
    for (int c = 0; c < 3; ++c) into[c] = row + c * columns + from - first;
    if (network.scale == 1) {
      const int64_t* const strides = network.x.strides;
      pack_rgb(network.x, b * strides[0] + line * strides[2] + from * strides[3], to - from, into);
    } else {
      reduce(line, from, to, into);
    }
    for (int c = 0; c < 3; ++c) {
      float* const plane = row + c * columns - first;
      for (int64_t w = first; w < from; ++w) plane[w] = network.zeros ? 0.0f : plane[from];
      for (int64_t w = to; w < end; ++w) plane[w] = network.zeros ? 0.0f : plane[to - 1];
    }
  }

  // Bilinear: the mean of the four pixels in the middle of each cell, or the one of an odd cell.
  void reduce(int64_t line, int64_t from, int64_t to, float* const* into) const {
    const ZeroDcePP& network = task.network;
    const int64_t scale = network.scale, height = network.sizes[2], width = network.sizes[3];
    const int64_t* const strides = network.x.strides;
    const int64_t middle = (scale - 1) / 2, other = scale / 2;
    const int64_t rows[2] = {smaller(line * scale + middle, height - 1) * strides[2],
                             smaller(line * scale + other, height - 1) * strides[2]};
    with_storage<float>(network.x.dtype, [&](auto code) {
      using Code = decltype(code);
      using S = typename Code::Element;
      for (int64_t w = from; w < to; w += LANES<float>) {
        const int64_t some = smaller(LANES<float>, to - w);
        for (int c = 0; c < 3; ++c) {
          const S* const x = static_cast<const S*>(network.x.data) + b * strides[0] + c * strides[1];
          S lanes[4][LANES<float>] = {};
          for (int64_t i = 0; i < some; ++i) {
            const int64_t pixels[2] = {smaller((w + i) * scale + middle, width - 1) * strides[3],
                                       smaller((w + i) * scale + other, width - 1) * strides[3]};
            for (int k = 0; k < 4; ++k) lanes[k][i] = x[rows[k / 2] + pixels[k % 2]];
            // of the row that is read when this one has gone through all layers
            for (int64_t pixel : rows) __builtin_prefetch(x + pixel + scale * strides[2] + pixels[0]);
          }
          f32v v[4];
          for (int k = 0; k < 4; ++k) v[k] = Code::widen(load<typename Code::Stored>(lanes[k]));
          const f32v mean = ((v[0] + v[1]) + (v[2] + v[3])) * 0.25f;
          __builtin_memcpy(into[c] + w - from, &mean, some * sizeof(float));
        }
      }
    });
  }

  // The depthwise sums of the image's three planes, a vector of pixels at a time, and all products.
  void first_layer(int64_t r, int64_t from, int64_t to) const {
    const float* const taps = weights[0];
    const float *const points = taps + zerodcepp_taps(3), *const bias = points + 3 * OUTPUT_BLOCK;
    for (int64_t p = from; p < to; p += LANES<float>) {
      alignas(64) float planes[3][LANES<float>];
      for (int c = 0; c < 3; ++c) {
        f32v sum{};
        for (int tap = 0; tap < 9; ++tap)
          sum += load<f32v>(image.row(r + tap / 3) + c * columns + p + tap % 3) * taps[3 * tap + c];
        store(planes[c], sum, false);
      }
      float* const out = features[1].row(r) + p * ZERODCE_CHANNELS;
      for (int n = 0; n < ZERODCE_CHANNELS; n += 2 * LANES<float>) {
        f32v w[3][2], b[2];
        for (int k = 0; k < 2; ++k) {
          b[k] = load<f32v>(bias + n + k * LANES<float>);
          for (int c = 0; c < 3; ++c) w[c][k] = load<f32v>(points + c * OUTPUT_BLOCK + n + k * LANES<float>);
        }
        for (int i = 0; i < LANES<float>; ++i) {
          for (int k = 0; k < 2; ++k) {
            f32v v = b[k];
            for (int c = 0; c < 3; ++c) v += w[c][k] * planes[c][i];
            store(out + i * ZERODCE_CHANNELS + n + k * LANES<float>, Bounds::at_least(v, f32v{}), false);
          }
        }
      }
    }
  }

  // The depthwise sums of a block of pixels, of the skip before the layer that precedes.
  void gather(int l, int64_t r, int64_t p, int64_t pixels) const {
    const int64_t depth = depth_of(l);
    const auto source = [&](int from, int64_t channel) {
      const int64_t offset = l - from - 1;
      const float* rows[3];
      for (int ky = 0; ky < 3; ++ky)
        rows[ky] = features[from].row(r + offset + ky) + (p + offset) * ZERODCE_CHANNELS;
      depthwise({rows[0], rows[1], rows[2]}, pixels, weights[l - 1] + channel, depth, depths + channel);
    };
    if (l >= 5) source(ZERODCE_SKIPS[l - 5], 0);
    source(l - 1, depth - ZERODCE_CHANNELS);
  }

  void layer(int l, int64_t r, int64_t from, int64_t to) const {
    const int64_t depth = depth_of(l);
    const float* const points = weights[l - 1] + zerodcepp_taps(depth);
    const float* const bias = points + depth * OUTPUT_BLOCK;
    constexpr int FEW = PRODUCT_ROWS % 3 ? PRODUCT_ROWS : PRODUCT_ROWS / 3;
    for (int64_t p = from; p < to; p += ROW_BLOCK) {
      const int64_t pixels = smaller(ROW_BLOCK, to - p);
      gather(l, r, p, pixels);
      float* const out = features[l].row(r) + p * ZERODCE_CHANNELS;
      for (int64_t i = 0; i < pixels; i += PRODUCT_ROWS) {
        for (int n = 0; n < ZERODCE_CHANNELS; n += 2 * LANES<float>) {
          const float* const some = depths + i * depth;
          float* const into = out + i * ZERODCE_CHANNELS + n;
          if (pixels - i <= FEW)
            pointwise<FEW>(some, depth, points + n, bias + n, into);
          else
            pointwise<PRODUCT_ROWS>(some, depth, points + n, bias + n, into);
        }
      }
    }
  }

  // The three raw maps of a row, to `planes`.
  void last_layer(int64_t r) const {
    const int64_t depth = depth_of(ZERODCE_LAYERS);
    const float* const points = weights[ZERODCE_LAYERS - 1] + zerodcepp_taps(depth);
    const float* const bias = points + depth * OUTPUT_BLOCK;
    for (int64_t p = 0; p < right - left; p += ROW_BLOCK) {
      const int64_t pixels = smaller(ROW_BLOCK, right - left - p);
      gather(ZERODCE_LAYERS, r, p, pixels);
      for (int64_t i = 0; i < pixels; i += PRODUCT_ROWS)
        product<1, float>({depths + i * depth}, depth, pixels - i, points, depth, sums + i * OUTPUT_BLOCK);
      for (int64_t i = 0; i < pixels; ++i)
        for (int c = 0; c < 3; ++c) planes[c * columns + p + i] = sums[i * OUTPUT_BLOCK + c] + bias[c];
    }
  }

  // tanh before the maps are enlarged, as published: the two do not commute.
  void finish(int64_t r) const {
    const ZeroDcePP& network = task.network;
    const f32v one = broadcast<f32v>(1.0f);
    const int64_t count = right - left, h = top + r;
    if (network.scale > 1) {
      for (int c = 0; c < 3; ++c) {
        float* const map = network.maps + ((b * 3 + c) * task.height + h) * task.map_pitch + left;
        for (int64_t at = 0; at < count; at += LANES<float>) {
          const f32v alpha = tanh_of(load<f32v>(planes + c * columns + at), one);
          __builtin_memcpy(map + at, &alpha, smaller(LANES<float>, count - at) * sizeof(float));
        }
      }
      return;
    }
    float* x[3];
    for (int c = 0; c < 3; ++c) x[c] = planes + (3 + c) * columns;
    const auto offset = [&](const View& v) {
      return b * v.strides[0] + h * v.strides[2] + left * v.strides[3];
    };
    pack_rgb(network.x, offset(network.x), count, x);
    for (int64_t at = 0; at < count; at += LANES<float>) {
      f32v v[3], alpha[3];
      for (int c = 0; c < 3; ++c) {
        v[c] = load<f32v>(x[c] + at);
        alpha[c] = tanh_of(load<f32v>(planes + c * columns + at), one);
      }
      brighten(v, alpha);
      for (int c = 0; c < 3; ++c) store(x[c] + at, v[c], false);
    }
    unpack_rgb(x, network.out, offset(network.out), count, false);
  }

  // Row r of layer l, 1 to 6; zeros outside of the image, where each layer pads with them.
  void hidden(int l, int64_t r) const {
    int64_t from = 0, to = columns_of(l);
    if (task.network.zeros) {
      float* const row = features[l].row(r);
      const int64_t h = top - margin_of(l) + r, first = left - margin_of(l);
      if (first < 0) from = -first;
      to = smaller(to, task.width - first);
      if (h < 0 || h >= task.height) to = from = 0;
      __builtin_memset(row, 0, from * ZERODCE_CHANNELS * sizeof(float));
      l == 1 ? first_layer(r, from, to) : layer(l, r, from, to);
      __builtin_memset(row + to * ZERODCE_CHANNELS, 0, (columns - to) * ZERODCE_CHANNELS * sizeof(float));
      return;
    }
    l == 1 ? first_layer(r, from, to) : layer(l, r, from, to);
  }

  void run() const {
    for (int64_t step = -2; step < rows_of(1); ++step) {
      read(step + 2);
      for (int l = 1; l <= ZERODCE_LAYERS; ++l) {
        const int64_t r = step - 2 * (l - 1);
        if (r < 0 || r >= rows_of(l)) continue;
        if (l < ZERODCE_LAYERS) {
          hidden(l, r);
        } else {
          last_layer(r);
          finish(r);
        }
      }
    }
  }
};

static void run_zerodcepp(const ZeroDcePPTask& task, int64_t from, int64_t to) {
  ZeroDcePPStrip strip(task);
  for (int64_t unit = from; unit < to; ++unit) {
    const int64_t band = unit / task.strips % task.bands;
    strip.b = unit / (task.strips * task.bands);
    strip.top = band * task.band_rows;
    strip.bottom = smaller(strip.top + task.band_rows, task.height);
    strip.left = unit % task.strips * task.strip_columns;
    strip.right = smaller(strip.left + task.strip_columns, task.width);
    strip.run();
  }
}
