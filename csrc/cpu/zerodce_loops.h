// What all ways to compute Zero-DCE's network share: its strips and its curve. Included once for each
// instruction set, inside that set's namespace, after pack.h and transpose.h.
//
// Down a strip of columns each layer follows one band of four rows behind the one before it, and of every
// layer only the bands that others still read are kept. Layer l computes 7 - l pixels more on each side than
// the last one, so that its row and column i are made of rows and columns i to i + 2 of the layer before.

constexpr int ZERODCE_LAYERS = 7, ZERODCE_CHANNELS = 32, ZERODCE_MAPS = 24;
constexpr int64_t ZERODCE_BAND = 4;
// Bands kept of the image and of layers 1 to 6; the first three are read again as skips
constexpr int64_t ZERODCE_KEPT[] = {2, 6, 5, 3, 2, 2, 2};
// What layers 5 to 7 read before the layer that precedes them
constexpr int ZERODCE_SKIPS[] = {3, 2, 1};

// Bands of rows of one layer; those that are not kept are overwritten.
template <class S>
struct ZeroDceRing {
  S* start;
  int64_t rows, pitch;

  S* row(int64_t r) const { return start + r % rows * pitch; }
};

template <class Feature>
struct ZeroDceStrip {
  using F = typename Feature::Element;

  const ZeroDceTask& task;
  int64_t wide, columns;  // of the widest layer that goes by whole steps, and with what the last one reads
  ZeroDceRing<float> image;
  ZeroDceRing<F> features[ZERODCE_LAYERS];  // of layers 1 to 6
  float *maps, *planes;
  void* more;
  int64_t b, top, bottom, left, right;

  // Columns of layer l in whole steps; layers before it have more, those after it fewer.
  static int64_t wide_of(const ZeroDceTask& task, int l, int64_t step) {
    return rounded_up(task.strip_columns + 2 * (ZERODCE_LAYERS - l), step);
  }

  // With so many bytes more for a way of its own.
  ZeroDceStrip(const ZeroDceTask& task, int64_t wide, int64_t own)
      : task(task), wide(wide), columns(wide + 8) {
    const int64_t padded = rounded_up(wide, 4 * ROW_BLOCK);
    const int64_t pixels = ZERODCE_KEPT[0] * ZERODCE_BAND * columns * 3 + ROW_BLOCK * 3 + LANES<float>;
    const int64_t mapped = ZERODCE_BAND * padded * ZERODCE_CHANNELS;
    const int64_t planar = (ZERODCE_CHANNELS + 3) * planes_pitch();
    const int64_t floats = rounded_up(pixels, 16) + mapped + rounded_up(planar, 16);
    int64_t stored = 0;
    for (int l = 1; l < ZERODCE_LAYERS; ++l) stored += ring_of(l);
    const int64_t bytes = floats * sizeof(float) + stored * sizeof(F) + own;
    float* const start = static_cast<float*>(scratch(bytes));
    // what fills up steps, products and windows at the right end
    __builtin_memset(start, 0, bytes);
    maps = start;
    planes = maps + mapped;
    image = {planes + rounded_up(planar, 16), ZERODCE_KEPT[0] * ZERODCE_BAND, columns * 3};
    F* feature = reinterpret_cast<F*>(start + floats);
    for (int l = 1; l < ZERODCE_LAYERS; ++l) {
      features[l] = {feature, ZERODCE_KEPT[l] * ZERODCE_BAND, columns * ZERODCE_CHANNELS};
      feature += ring_of(l);
    }
    more = feature;
  }

  int64_t ring_of(int l) const { return ZERODCE_KEPT[l] * ZERODCE_BAND * columns * ZERODCE_CHANNELS; }
  int64_t planes_pitch() const { return rounded_up(columns, LANES<float>); }
  float* maps_of(int64_t i) const { return maps + i * wide * ZERODCE_CHANNELS; }

  // Rows that layer l computes; the image is layer 0.
  int64_t rows_of(int l) const { return bottom - top + 2 * (ZERODCE_LAYERS - l); }
  int64_t margin_of(int l) const { return ZERODCE_LAYERS - l; }

  // Whether a row or column of a layer that pads with zeros lies outside of the image.
  bool outside(int64_t at, int64_t size) const { return task.network.zeros && (at < 0 || at >= size); }

  void read(int64_t band) const {
    const ZeroDce& network = task.network;
    const int64_t height = network.sizes[2], width = network.sizes[3], around = network.around;
    const View& x = network.x;
    for (int64_t i = 0; i < ZERODCE_BAND; ++i) {
      float* const row = image.row(band * ZERODCE_BAND + i);
      const int64_t h = top - ZERODCE_LAYERS + band * ZERODCE_BAND + i, first = left - ZERODCE_LAYERS;
      const int64_t count = right - left + 2 * ZERODCE_LAYERS;
      // beyond a last strip that is narrower, too: what fills its tiles up may not depend on other strips
      __builtin_memset(row + count * 3, 0, (columns - count) * 3 * sizeof(float));
      if (outside(h, height)) {
        __builtin_memset(row, 0, count * 3 * sizeof(float));
        continue;
      }
      // the pixels that there are, and beyond them the last ones
      const int64_t begin = clamped(-around, first, first + count - 1);
      const int64_t end = clamped(width + around, begin + 1, first + count);
      const int64_t at = clamped(h, -around, height - 1 + around) * x.strides[2] + b * x.strides[0];
      float* planar[3];
      for (int c = 0; c < 3; ++c) planar[c] = planes + c * planes_pitch();
      pack_rgb(x, at + begin * x.strides[3], end - begin, planar);
      unpack_rgb(planar, View{row, Dtype::f32, {0, 1, 0, 3}}, (begin - first) * 3, end - begin, false);
      const auto fill = [&](int64_t from, int64_t to, int64_t pixel) {
        for (int64_t j = from; j < to; ++j)
          for (int c = 0; c < 3; ++c) row[3 * j + c] = network.zeros ? 0.0f : row[3 * pixel + c];
      };
      fill(0, begin - first, begin - first);
      fill(end - first, count, end - first - 1);
    }
  }

  FASTLLIE_INLINE int64_t clamped(int64_t at, int64_t low, int64_t high) {
    return at < low ? low : at > high ? high : at;
  }

  // Rows and columns outside of the image, where each layer pads with zeros.
  void pad(int l, int64_t band) const {
    const int64_t height = task.network.sizes[2], width = task.network.sizes[3];
    const int64_t first = left - margin_of(l), end = right + margin_of(l);
    for (int64_t i = 0; i < ZERODCE_BAND; ++i) {
      F* const row = features[l].row(band * ZERODCE_BAND + i);
      const auto clear = [&](int64_t from, int64_t to) {
        if (from < to)
          __builtin_memset(row + from * ZERODCE_CHANNELS, 0, (to - from) * ZERODCE_CHANNELS * sizeof(F));
      };
      if (outside(top - margin_of(l) + band * ZERODCE_BAND + i, height)) {
        clear(0, columns);
        continue;
      }
      clear(0, first < 0 ? -first : 0);
      if (end > width) clear(width - first, columns);
    }
  }

  void curve(int64_t band) const {
    const ZeroDce& network = task.network;
    const int64_t count = right - left, pitch = planes_pitch();
    const f32v one = broadcast<f32v>(1.0f);
    float* x[3];
    for (int c = 0; c < 3; ++c) x[c] = planes + (ZERODCE_CHANNELS + c) * pitch;
    for (int64_t i = 0; i < ZERODCE_BAND && top + band * ZERODCE_BAND + i < bottom; ++i) {
      const int64_t h = top + band * ZERODCE_BAND + i;
      const auto offset = [&](const View& v) {
        return b * v.strides[0] + h * v.strides[2] + left * v.strides[3];
      };
      to_planes<float>(maps_of(i), ZERODCE_CHANNELS, count, planes, pitch);
      pack_rgb(network.x, offset(network.x), count, x);
      for (int64_t at = 0; at < count; at += LANES<float>) {
        for (int c = 0; c < 3; ++c) {
          f32v v = load<f32v>(x[c] + at);
          for (int step = 0; step < ZERODCE_MAPS; step += 3)
            v = curve_step(v, tanh_of(load<f32v>(planes + (step + c) * pitch + at), one));
          store(x[c] + at, v, false);
        }
      }
      unpack_rgb(x, network.out, offset(network.out), count, false);
    }
  }
};

// All layers of a strip, band by band.
template <class Strip>
static void run_strip(const Strip& strip) {
  const int64_t last = (strip.bottom - strip.top + ZERODCE_BAND - 1) / ZERODCE_BAND;
  for (int64_t step = -1; step < last + ZERODCE_LAYERS - 1; ++step) {
    strip.read(step + 1);
    for (int l = 1; l <= ZERODCE_LAYERS; ++l) {
      const int64_t band = step - (l - 1);
      if (band < 0 || band >= last + ZERODCE_LAYERS - l) continue;
      if (l == ZERODCE_LAYERS) {
        strip.layer(l, band);
        strip.curve(band);
      } else if (band * ZERODCE_BAND >= strip.rows_of(l)) {
        // the next layer's last tiles reach below what anybody wants
        for (int64_t i = 0; i < ZERODCE_BAND; ++i)
          __builtin_memset(strip.features[l].row(band * ZERODCE_BAND + i), 0,
                           strip.columns * ZERODCE_CHANNELS * sizeof(typename Strip::F));
      } else {
        l == 1 ? strip.first_layer(band) : strip.layer(l, band);
        if (strip.task.network.zeros) strip.pad(l, band);
      }
    }
  }
}

template <class Strip>
static void run_zerodce(const ZeroDceTask& task, int64_t from, int64_t to) {
  const auto& [batch, channels, height, width] = task.network.sizes;
  Strip strip(task);
  for (int64_t unit = from; unit < to; ++unit) {
    const int64_t band = unit / task.strips % task.bands;
    strip.b = unit / (task.strips * task.bands);
    strip.top = band * task.band_rows;
    strip.bottom = smaller(strip.top + task.band_rows, height);
    strip.left = unit % task.strips * task.strip_columns;
    strip.right = smaller(strip.left + task.strip_columns, width);
    run_strip(strip);
  }
}
