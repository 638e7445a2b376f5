// The loops of Zero-DCE++'s network. Included once for each instruction set, inside that set's namespace,
// after zerodce_loops.h.
//
// Down a strip of columns each layer follows two rows behind the one before it, and of every layer only the
// rows that others still read are kept. Layer l computes 7 - l pixels more on each side than the last one, so
// that its row and column i are made of rows and columns i to i + 2 of the layer before.

// Rows kept of the image and of layers 1 to 6; the first three are read again as skips
constexpr int64_t DCEPP_KEPT[] = {3, 8, 6, 4, 3, 3, 3};
// Pixels whose depthwise sums are made at once, from the same columns
constexpr int64_t DCEPP_PIXELS = 4;
static_assert(ROW_BLOCK % DCEPP_PIXELS == 0);

// The depthwise sums of 32 channels of `pixels` pixels, rounded up to DCEPP_PIXELS; `depth` from pixel to
// pixel and from tap to tap.
static void depthwise(const float* const (&rows)[3], int64_t pixels, const float* weights, int64_t depth,
                      float* to) {
  for (int c = 0; c < DCE_CHANNELS; c += LANES<float>) {
    f32v w[9];
#pragma GCC unroll 9
    for (int tap = 0; tap < 9; ++tap) w[tap] = load<f32v>(weights + tap * depth + c);
    for (int64_t p = 0; p < pixels; p += DCEPP_PIXELS) {
      f32v sums[DCEPP_PIXELS] = {};
#pragma GCC unroll 3
      for (int ky = 0; ky < 3; ++ky) {
        f32v v[DCEPP_PIXELS + 2];
#pragma GCC unroll 6
        for (int j = 0; j < DCEPP_PIXELS + 2; ++j) v[j] = load<f32v>(rows[ky] + (p + j) * DCE_CHANNELS + c);
#pragma GCC unroll 3
        for (int kx = 0; kx < 3; ++kx)
#pragma GCC unroll 4
          for (int i = 0; i < DCEPP_PIXELS; ++i) sums[i] += v[i + kx] * w[3 * ky + kx];
      }
#pragma GCC unroll 4
      for (int i = 0; i < DCEPP_PIXELS; ++i) store(to + (p + i) * depth + c, sums[i], false);
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
      store(to + r * DCE_CHANNELS + n * LANES<float>, Bounds::at_least(sums[r][n], f32v{}), false);
}

// How far ahead an image is asked for: the steps of the curve keep its loads apart, and the machine's own
// prefetcher ends with each page. 4 KiB take 1920x1080 interleaved in 4.3 ms instead of 6.0, 1 KiB in 5.1
// (AVX-512 on an EPYC, one thread).
constexpr int64_t DCEPP_AHEAD = 4096;

// Eight steps of the curve, whose map stays the same, of several vectors together: the steps of one wait for
// each other.
template <int N>
FASTLLIE_INLINE void brighten(f32v (&x)[N], const f32v (&alpha)[N]) {
#pragma GCC unroll 8
  for (int step = 0; step < CHUNK; ++step)
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) x[n] = curve_step(x[n], alpha[n]);
}

struct DcePPStrip {
  const ZeroDcePPTask& task;
  int64_t columns;                      // of every row that is kept
  DceRing<float> image;                 // three planes a row
  DceRing<float> features[DCE_LAYERS];  // of layers 1 to 6
  float *depths, *sums, *planes;
  const float* weights[DCE_LAYERS];
  int64_t b, top, bottom, left, right;

  explicit DcePPStrip(const ZeroDcePPTask& task) : task(task) {
    // the last vector of pixels fills up what it does not reach
    columns = rounded_up(task.strip_columns + 2 * DCE_LAYERS + 16, 16);
    int64_t floats = ROW_BLOCK * (2 * DCE_CHANNELS + OUTPUT_BLOCK) + (DCEPP_KEPT[0] + 2) * 3 * columns;
    for (int l = 1; l < DCE_LAYERS; ++l) floats += DCEPP_KEPT[l] * columns * DCE_CHANNELS;
    float* next = static_cast<float*>(scratch(floats * sizeof(float)));
    // columns beyond a narrow strip are computed with: not slowly, of what some other kernel left
    __builtin_memset(next, 0, floats * sizeof(float));
    for (int l = 1; l < DCE_LAYERS; ++l) {
      features[l] = {next, DCEPP_KEPT[l], columns * DCE_CHANNELS};
      next += DCEPP_KEPT[l] * columns * DCE_CHANNELS;
    }
    depths = next;
    sums = depths + ROW_BLOCK * 2 * DCE_CHANNELS;
    image = {sums + ROW_BLOCK * OUTPUT_BLOCK, DCEPP_KEPT[0], 3 * columns};
    planes = image.start + DCEPP_KEPT[0] * 3 * columns;
    weights[0] = task.network.weights;
    for (int l = 1; l < DCE_LAYERS; ++l) weights[l] = weights[l - 1] + zerodcepp_weights(depth_of(l));
  }

  // Input channels of layer l.
  static int64_t depth_of(int l) { return l == 1 ? 3 : l < 5 ? DCE_CHANNELS : 2 * DCE_CHANNELS; }
  static int64_t margin_of(int l) { return DCE_LAYERS - l; }
  int64_t rows_of(int l) const { return bottom - top + 2 * margin_of(l); }
  int64_t columns_of(int l) const { return right - left + 2 * margin_of(l); }

  // A row of what the network sees, and what it finds around it.
  void read(int64_t r) const {
    const ZeroDcePP& network = task.network;
    const int64_t around = network.around, h = top - DCE_LAYERS + r;
    float* const row = image.row(r);
    if (network.zeros && (h < 0 || h >= task.height)) {
      __builtin_memset(row, 0, 3 * columns * sizeof(float));
      return;
    }
    const int64_t first = left - DCE_LAYERS, end = right + DCE_LAYERS;
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
      float* const out = features[1].row(r) + p * DCE_CHANNELS;
      for (int n = 0; n < DCE_CHANNELS; n += 2 * LANES<float>) {
        f32v w[3][2], b[2];
        for (int k = 0; k < 2; ++k) {
          b[k] = load<f32v>(bias + n + k * LANES<float>);
          for (int c = 0; c < 3; ++c) w[c][k] = load<f32v>(points + c * OUTPUT_BLOCK + n + k * LANES<float>);
        }
        for (int i = 0; i < LANES<float>; ++i) {
          for (int k = 0; k < 2; ++k) {
            f32v v = b[k];
            for (int c = 0; c < 3; ++c) v += w[c][k] * planes[c][i];
            store(out + i * DCE_CHANNELS + n + k * LANES<float>, Bounds::at_least(v, f32v{}), false);
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
        rows[ky] = features[from].row(r + offset + ky) + (p + offset) * DCE_CHANNELS;
      depthwise({rows[0], rows[1], rows[2]}, pixels, weights[l - 1] + channel, depth, depths + channel);
    };
    if (l >= 5) source(DCE_SKIPS[l - 5], 0);
    source(l - 1, depth - DCE_CHANNELS);
  }

  void layer(int l, int64_t r, int64_t from, int64_t to) const {
    const int64_t depth = depth_of(l);
    const float* const points = weights[l - 1] + zerodcepp_taps(depth);
    const float* const bias = points + depth * OUTPUT_BLOCK;
    constexpr int FEW = PRODUCT_ROWS % 3 ? PRODUCT_ROWS : PRODUCT_ROWS / 3;
    for (int64_t p = from; p < to; p += ROW_BLOCK) {
      const int64_t pixels = smaller(ROW_BLOCK, to - p);
      gather(l, r, p, pixels);
      float* const out = features[l].row(r) + p * DCE_CHANNELS;
      for (int64_t i = 0; i < pixels; i += PRODUCT_ROWS) {
        for (int n = 0; n < DCE_CHANNELS; n += 2 * LANES<float>) {
          const float* const some = depths + i * depth;
          float* const into = out + i * DCE_CHANNELS + n;
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
    const int64_t depth = depth_of(DCE_LAYERS);
    const float* const points = weights[DCE_LAYERS - 1] + zerodcepp_taps(depth);
    const float* const bias = points + depth * OUTPUT_BLOCK;
    for (int64_t p = 0; p < right - left; p += ROW_BLOCK) {
      const int64_t pixels = smaller(ROW_BLOCK, right - left - p);
      gather(DCE_LAYERS, r, p, pixels);
      for (int64_t i = 0; i < pixels; i += PRODUCT_ROWS)
        product<1, float>({depths + i * depth}, depth, pixels - i, points, depth, sums + i * OUTPUT_BLOCK);
      for (int64_t i = 0; i < pixels; ++i)
        for (int c = 0; c < 3; ++c) planes[c * columns + p + i] = sums[i * OUTPUT_BLOCK + c] + bias[c];
    }
  }

  // tanh before the maps are enlarged, as published: the two do not commute.
  void finish(int64_t r) const {
    const ZeroDcePP& network = task.network;
    const f32v one = f32v{} + 1.0f;
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
      __builtin_memset(row, 0, from * DCE_CHANNELS * sizeof(float));
      l == 1 ? first_layer(r, from, to) : layer(l, r, from, to);
      __builtin_memset(row + to * DCE_CHANNELS, 0, (columns - to) * DCE_CHANNELS * sizeof(float));
      return;
    }
    l == 1 ? first_layer(r, from, to) : layer(l, r, from, to);
  }

  void run() const {
    for (int64_t step = -2; step < rows_of(1); ++step) {
      read(step + 2);
      for (int l = 1; l <= DCE_LAYERS; ++l) {
        const int64_t r = step - 2 * (l - 1);
        if (r < 0 || r >= rows_of(l)) continue;
        if (l < DCE_LAYERS) {
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
  DcePPStrip strip(task);
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

// Lane i of the result is lane at[i] of v.
FASTLLIE_INLINE f32v picked(f32v v, i32v at) {
#if defined(FASTLLIE_AVX512)
  return (f32v)_mm512_maskz_permutexvar_ps(0xffff, (__m512i)at, (__m512)v);
#elif defined(FASTLLIE_AVX2)
  return (f32v)_mm256_permutevar8x32_ps((__m256)v, (__m256i)at);
#else
  f32v result;
  for (int i = 0; i < LANES<float>; ++i) result[i] = v[at[i]];
  return result;
#endif
}

// Where a pixel lies between those of the small map when their corners are aligned, in PyTorch's arithmetic:
// its rounding moves a steep map of a large image by more than that of everything else.
struct Stretch {
  int64_t first;
  float share;  // of the one that follows

  FASTLLIE_INLINE Stretch at(int64_t place, int64_t small, int64_t large) {
    const float where = float(small - 1) / float(large - 1) * float(place);
    const int64_t first = smaller(int64_t(where), small - 1);
    return {first, where - float(first)};
  }
};

// Brightens rows of images by their enlarged maps. Rows of the maps are enlarged along their columns once,
// and mixed for each row of the image.
struct DcePPRows {
  const ZeroDcePPTask& task;
  int64_t padded;  // columns of the image, whole vectors
  float* shares;
  int32_t *firsts, *starts;       // of each pixel after that of its vector, and of each vector
  float *row, *above, *below;     // of the map, and two of them enlarged
  int64_t image = -1, line = -1;  // those that are enlarged

  explicit DcePPRows(const ZeroDcePPTask& task) : task(task) {
    const int64_t width = task.network.sizes[3], columns = task.map_pitch + 2 * LANES<float>;
    padded = rounded_up(width, 16);
    shares = static_cast<float*>(scratch((columns + 9 * padded) * sizeof(float)));
    firsts = reinterpret_cast<int32_t*>(shares + padded);
    starts = firsts + padded;
    above = shares + 3 * padded;
    below = above + 3 * padded;
    row = below + 3 * padded;
    for (int64_t w = 0; w < padded; ++w) {
      const Stretch stretch = Stretch::at(smaller(w, width - 1), task.width, task.width * task.network.scale);
      if (w % LANES<float> == 0) starts[w / LANES<float>] = int32_t(stretch.first);
      firsts[w] = int32_t(stretch.first) - starts[w / LANES<float>];
      shares[w] = stretch.share;
    }
  }

  // A row of the small maps.
  void enlarge(int64_t b, int64_t h, float* to) const {
    for (int c = 0; c < 3; ++c, to += padded) {
      const float* const map = task.network.maps + ((b * 3 + c) * task.height + h) * task.map_pitch;
      __builtin_memcpy(row, map, task.width * sizeof(float));
      row[task.width] = row[task.width - 1];
      for (int64_t at = 0; at < padded; at += LANES<float>) {
        // a vector of pixels lies between at most half as many and two of the small map
        const f32v v = load<f32v>(row + starts[at / LANES<float>]);
        const i32v first = load<i32v>(firsts + at);
        const f32v earlier = picked(v, first);
        store(to + at, earlier + (picked(v, first + 1) - earlier) * load<f32v>(shares + at), false);
      }
    }
  }

  void enlarge_rows(int64_t b, int64_t h) {
    if (image == b && line == h) return;
    const int64_t next = smaller(h + 1, task.height - 1);
    if (image == b && line + 1 == h) {
      std::swap(above, below);
    } else {
      enlarge(b, h, above);
    }
    enlarge(b, next, below);
    image = b;
    line = h;
  }

  FASTLLIE_INLINE f32v mixed(const DcePPRows& rows, int c, int64_t at, float share) {
    const f32v first = load<f32v>(rows.above + c * rows.padded + at);
    return first + (load<f32v>(rows.below + c * rows.padded + at) - first) * share;
  }

  void run(int64_t b, int64_t h) {
    const View &x = task.network.x, &out = task.network.out;
    const int64_t width = task.network.sizes[3];
    const auto offset = [&](const View& v) { return b * v.strides[0] + h * v.strides[2]; };
    const Stretch stretch = Stretch::at(h, task.height, task.height * task.network.scale);
    const float share = stretch.share;
    enlarge_rows(b, stretch.first);
    int64_t at = 0;
    with_storage<float>(x.dtype, [&](auto code) {
      using Code = decltype(code);
      using S = typename Code::Element;
      using Stored = typename Code::Stored;
      const S* const from = static_cast<const S*>(x.data) + offset(x);
      S* const to = static_cast<S*>(out.data) + offset(out);
      constexpr int N = LANES<float>;
      constexpr int64_t ahead = DCEPP_AHEAD / sizeof(S);
      if (unit(x) && unit(out)) {
        for (int c = 0; c < 3; ++c) {
          const S* const plane = from + c * x.strides[1];
          S* const result = to + c * out.strides[1];
          const auto vectors = [&](auto count) __attribute__((always_inline)) {
            constexpr int COUNT = decltype(count)::value;
            for (; at + COUNT * N <= width; at += COUNT * N) {
              f32v v[COUNT], alpha[COUNT];
#pragma GCC unroll 4
              for (int n = 0; n < COUNT; ++n) {
                __builtin_prefetch(plane + at + n * N + ahead);
                v[n] = Code::widen(load<Stored>(plane + at + n * N));
                alpha[n] = mixed(*this, c, at + n * N, share);
              }
              brighten(v, alpha);
#pragma GCC unroll 4
              for (int n = 0; n < COUNT; ++n) store(result + at + n * N, Code::narrow(v[n]), task.stream);
            }
          };
          at = 0;
          vectors(std::integral_constant<int, 4>{});
          vectors(std::integral_constant<int, 1>{});
        }
      } else if (interleaved(x) && interleaved(out)) {
        for (; at + N <= width; at += N) {
          Stored triples[3];
          f32v v[3], alpha[3];
          for (int k = 0; k < 3; ++k) {
            __builtin_prefetch(from + 3 * at + k * N + ahead);
            triples[k] = load<Stored>(from + 3 * at + k * N);
          }
          v[0] = Code::widen(from_triples<N, 0>(triples));
          v[1] = Code::widen(from_triples<N, 1>(triples));
          v[2] = Code::widen(from_triples<N, 2>(triples));
          for (int c = 0; c < 3; ++c) alpha[c] = mixed(*this, c, at, share);
          brighten(v, alpha);
          Stored planes[3];
          for (int c = 0; c < 3; ++c) planes[c] = Code::narrow(v[c]);
          store(to + 3 * at, to_triples<N, 0>(planes), task.stream);
          store(to + 3 * at + N, to_triples<N, 1>(planes), task.stream);
          store(to + 3 * at + 2 * N, to_triples<N, 2>(planes), task.stream);
        }
      }
    });
    for (; at < width; at += LANES<float>) {
      alignas(64) float planes[3][LANES<float>];
      float* const pixels[3] = {planes[0], planes[1], planes[2]};
      const int64_t some = smaller(LANES<float>, width - at);
      pack_rgb(x, offset(x) + at * x.strides[3], some, pixels);
      f32v v[3], alpha[3];
      for (int c = 0; c < 3; ++c) {
        v[c] = load<f32v>(planes[c]);
        alpha[c] = mixed(*this, c, at, share);
      }
      brighten(v, alpha);
      for (int c = 0; c < 3; ++c) store(planes[c], v[c], false);
      unpack_rgb(pixels, out, offset(out) + at * out.strides[3], some, false);
    }
  }
};

static void run_zerodcepp_rows(const ZeroDcePPTask& task, int64_t from, int64_t to) {
  DcePPRows rows(task);
  const int64_t height = task.network.sizes[2];
  for (int64_t unit = from; unit < to; ++unit) rows.run(unit / height, unit % height);
  finish_streams();
}

ZeroDcePPLoops zerodcepp_loops() { return {run_zerodcepp, run_zerodcepp_rows}; }
