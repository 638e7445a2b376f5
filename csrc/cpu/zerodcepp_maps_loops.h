// The rest of Zero-DCE++'s loops: the maps of a reduced image enlarged, and the image brightened by them.
// Included once for each instruction set, inside that set's namespace, after zerodcepp_loops.h.

// How far ahead an image is asked for: the steps of the curve keep its loads apart, and the machine's own
// prefetcher ends with each page. 4 KiB take 1920x1080 interleaved in 4.3 ms instead of 6.0, 1 KiB in 5.1
// (AVX-512 on an EPYC, one thread).
constexpr int64_t ZERODCEPP_AHEAD = 4096;

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
struct ZeroDcePPRows {
  const ZeroDcePPTask& task;
  int64_t padded;  // columns of the image, whole vectors
  float* shares;
  int32_t *firsts, *starts;       // of each pixel after that of its vector, and of each vector
  float *row, *above, *below;     // of the map, and two of them enlarged
  int64_t image = -1, line = -1;  // those that are enlarged

  explicit ZeroDcePPRows(const ZeroDcePPTask& task) : task(task) {
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

  FASTLLIE_INLINE f32v mixed(const ZeroDcePPRows& rows, int c, int64_t at, float share) {
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
      constexpr int64_t ahead = ZERODCEPP_AHEAD / sizeof(S);
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
  ZeroDcePPRows rows(task);
  const int64_t height = task.network.sizes[2];
  for (int64_t unit = from; unit < to; ++unit) rows.run(unit / height, unit % height);
  finish_streams();
}

ZeroDcePPLoops zerodcepp_loops() { return {run_zerodcepp, run_zerodcepp_rows}; }
