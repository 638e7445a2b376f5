// The loops of SCI's network. Included once for each instruction set, inside that set's namespace, after
// simd.h and illumination_loops.h.
//
// Down a strip of columns each layer follows one row behind the one before it, and of every layer only the
// rows that the next one still reads are kept: four of the image and three of each hidden layer. A row begins
// three columns left of the strip in the image, two and one in the hidden layers: so each layer's column i is
// made of columns i to i + 2 of the layer before.

// Vectors of one row that are computed together: three sums each, and the weights are loaded once for all.
constexpr int SCI_BLOCK = 4;

constexpr int64_t SCI_ROWS[] = {4, 3, 3};  // kept of the image and of the two hidden layers

// Rows of one layer, of three channels each.
template <class T>
struct SciRing {
  T* start;
  int64_t rows, columns;  // in memory

  T* row(int64_t h, int64_t c) const { return start + (h % rows * SCI_CHANNELS + c) * columns; }
};

// GCC makes the load a part of each multiplication otherwise, and three loads where one does: most of them
// straddle two cache lines, and they become the bound.
template <class V, class S>
FASTLLIE_INLINE V load_once(const S* from) {
  V v = load<V>(from);
#if defined(FASTLLIE_AVX512)
  asm("" : "+v"(v));
#elif defined(FASTLLIE_AVX2)
  asm("" : "+x"(v));
#endif
  return v;
}

// N vectors of all channels of a row, from column `at`; rows[3 c + ky] is channel c of the row at tap ky, and
// the weights are those of one output after the other for each tap.
template <class T, int N>
FASTLLIE_INLINE void convolve(const T* const* rows, int64_t at, const T* weights, const T* bias,
                              Vector<T> (&sums)[SCI_CHANNELS][N]) {
  using V = Vector<T>;
  for (int o = 0; o < SCI_CHANNELS; ++o)
    for (int n = 0; n < N; ++n) sums[o][n] = bias[o] - V{};
  for (int row = 0; row < SCI_TAPS; ++row) {
    const T* from = rows[row] + at;
    const T* w = weights + row * SCI_TAPS;
    for (int kx = 0; kx < 3; ++kx) {
      for (int n = 0; n < N; ++n) {
        const V v = load_once<V>(from + kx + n * LANES<T>);
        for (int o = 0; o < SCI_CHANNELS; ++o) sums[o][n] += v * w[kx * SCI_CHANNELS + o];
      }
    }
  }
}

// A layer over `vectors` vectors of a row; finish(c, at, sum) makes of a sum what is stored at to[c] + at.
template <class T, class Finish>
FASTLLIE_INLINE void sci_row(const T* const* rows, const T* weights, const T* bias, int64_t vectors,
                             T* const* to, const Finish& finish) {
  const auto block = [&](int64_t first, auto count) {
    constexpr int N = decltype(count)::value;
    Vector<T> sums[SCI_CHANNELS][N];
    convolve<T, N>(rows, first * LANES<T>, weights, bias, sums);
    for (int c = 0; c < SCI_CHANNELS; ++c) {
      for (int n = 0; n < N; ++n) {
        const int64_t at = (first + n) * LANES<T>;
        store(to[c] + at, finish(c, at, sums[c][n]), false);
      }
    }
  };
  int64_t at = 0;
  for (; at + SCI_BLOCK <= vectors; at += SCI_BLOCK) block(at, std::integral_constant<int, SCI_BLOCK>{});
  if (vectors - at == 3) block(at, std::integral_constant<int, 3>{});
  if (vectors - at == 2) block(at, std::integral_constant<int, 2>{});
  if (vectors - at == 1) block(at, std::integral_constant<int, 1>{});
}

// Where a unit of work lies, and the rows that it keeps.
template <class T>
struct SciTile {
  const SciTask& task;
  SciRing<T> layers[SCI_LAYERS];
  T* out;         // one row of three channels
  const T* none;  // a row of zeros
  const T *weights, *bias;
  int64_t b, top, bottom, left, right;

  // The rows that make row h of what follows `layer`; those outside the image are mirrored or zero.
  void inputs(int layer, int64_t h, const T** rows) const {
    const int64_t height = task.sizes[2];
    for (int ky = 0; ky < 3; ++ky) {
      const int64_t at = h + ky - 1;
      const bool outside = at < 0 || at >= height;
      for (int c = 0; c < SCI_CHANNELS; ++c)
        rows[3 * c + ky] = outside && !task.reflect ? none : layers[layer].row(mirrored(at, height), c);
    }
  }

  // Columns one outside the image, where the next layer reads them.
  void pad(int layer, int64_t h) const {
    const int64_t width = task.sizes[3], begin = left - SCI_HALO + layer;
    for (const int64_t at : {int64_t{-1}, width}) {
      if (at < 0 ? left > 0 : right + SCI_HALO - layer <= width) continue;
      for (int c = 0; c < SCI_CHANNELS; ++c) {
        T* const row = layers[layer].row(h, c) - begin;
        row[at] = task.reflect ? row[mirrored(at, width)] : T{0};
      }
    }
  }

  void read(int64_t h) const {
    const int64_t begin = left < SCI_HALO ? 0 : left - SCI_HALO;
    const int64_t end = right + SCI_HALO < task.sizes[3] ? right + SCI_HALO : task.sizes[3];
    const int64_t offset = b * task.x.strides[0] + h * task.x.strides[2] + begin * task.x.strides[3];
    T* rows[SCI_CHANNELS];
    for (int c = 0; c < SCI_CHANNELS; ++c) rows[c] = layers[0].row(h, c) + begin - (left - SCI_HALO);
    pack_rgb(task.x, offset, end - begin, rows);
    pad(0, h);
  }

  void hidden(int layer, int64_t h) const {
    const Vector<T> zero{};
    const T* rows[SCI_TAPS];
    inputs(layer - 1, h, rows);
    T* to[SCI_CHANNELS];
    for (int c = 0; c < SCI_CHANNELS; ++c) to[c] = layers[layer].row(h, c);
    const T* w = weights + (layer - 1) * SCI_WEIGHTS;
    const T* sums = bias + (layer - 1) * SCI_CHANNELS;
    const int64_t vectors = (right - left + 2 * (SCI_LAYERS - layer) + LANES<T> - 1) / LANES<T>;
    if (layer == 2 && task.residual) {
      sci_row(rows, w, sums, vectors, to, [&](int c, int64_t at, Vector<T> sum) {
        return load<Vector<T>>(rows[3 * c + 1] + at + 1) + Bounds::at_least(sum, zero);
      });
    } else {
      sci_row(rows, w, sums, vectors, to,
              [&](int, int64_t, Vector<T> sum) { return Bounds::at_least(sum, zero); });
    }
    pad(layer, h);
  }

  void write(int64_t h) const {
    const Vector<T> one = broadcast<Vector<T>>(1);
    const T* rows[SCI_TAPS];
    inputs(2, h, rows);
    T* to[SCI_CHANNELS];
    const T* x[SCI_CHANNELS];
    for (int c = 0; c < SCI_CHANNELS; ++c) {
      to[c] = out + c * layers[0].columns;
      x[c] = layers[0].row(h, c) + SCI_HALO;
    }
    sci_row(rows, weights + 2 * SCI_WEIGHTS, bias + 2 * SCI_CHANNELS,
            (right - left + LANES<T> - 1) / LANES<T>, to, [&](int c, int64_t at, Vector<T> sum) {
              return sci_quotient<Bounds>(load<Vector<T>>(x[c] + at),
                                          exp2_of_minus(Bounds::at_least(sum, one * -126.0f)), one);
            });
    const int64_t offset = b * task.out.strides[0] + h * task.out.strides[2] + left * task.out.strides[3];
    unpack_rgb(to, task.out, offset, right - left, task.stream);
  }

  void run() const {
    const int64_t height = task.sizes[2];
    const auto within = [&](int64_t h, int64_t margin) {
      return h >= 0 && h < height && h >= top - margin && h < bottom + margin;
    };
    for (int64_t h = top - SCI_HALO; h < bottom + SCI_HALO; ++h) {
      if (within(h, 3)) read(h);
      if (within(h - 1, 2)) hidden(1, h - 1);
      if (within(h - 2, 1)) hidden(2, h - 2);
      if (within(h - 3, 0)) write(h - 3);
    }
  }
};

template <class T>
static void run_sci(const SciTask& task, int64_t from, int64_t to) {
  const auto& [batch, channels, height, width] = task.sizes;
  // the last vector of a layer reads two columns beyond its own end
  const int64_t columns = task.strip_columns + 3 * LANES<T>;
  const int64_t rows = SCI_CHANNELS * (SCI_ROWS[0] + SCI_ROWS[1] + SCI_ROWS[2] + 1) + 1;
  std::vector<T> scratch(rows * columns + 64 / sizeof(T) + SCI_LAYERS * (SCI_WEIGHTS + SCI_CHANNELS));
  T* next = scratch.data() + (-reinterpret_cast<uintptr_t>(scratch.data()) % 64) / sizeof(T);
  SciTile<T> tile{task, {}, nullptr, nullptr, nullptr, nullptr, 0, 0, 0, 0, 0};
  for (int layer = 0; layer < SCI_LAYERS; ++layer) {
    tile.layers[layer] = {next, SCI_ROWS[layer], columns};
    next += SCI_ROWS[layer] * SCI_CHANNELS * columns;
  }
  tile.out = next;
  tile.none = tile.out + SCI_CHANNELS * columns;
  T* const weights = tile.out + (SCI_CHANNELS + 1) * columns;
  T* const bias = weights + SCI_LAYERS * SCI_WEIGHTS;
  // from layer, output, input, row, column to layer, input, row, column, output; the last layer by log2(e),
  // so that e^-z is a power of two
  const T *given = static_cast<const T*>(task.weights), *given_bias = static_cast<const T*>(task.biases);
  for (int layer = 0; layer < SCI_LAYERS; ++layer) {
    const T scale = layer + 1 < SCI_LAYERS ? T(1) : T(1.4426950408889634);
    for (int o = 0; o < SCI_CHANNELS; ++o) {
      for (int tap = 0; tap < SCI_WEIGHTS / SCI_CHANNELS; ++tap)
        weights[layer * SCI_WEIGHTS + tap * SCI_CHANNELS + o] = *given++ * scale;
      bias[layer * SCI_CHANNELS + o] = *given_bias++ * scale;
    }
  }
  tile.weights = weights;
  tile.bias = bias;
  for (int64_t unit = from; unit < to; ++unit) {
    const int64_t band = unit / task.strips % task.bands;
    tile.b = unit / (task.strips * task.bands);
    tile.top = band * task.band_rows;
    tile.bottom = tile.top + task.band_rows < height ? tile.top + task.band_rows : height;
    tile.left = unit % task.strips * task.strip_columns;
    tile.right = tile.left + task.strip_columns < width ? tile.left + task.strip_columns : width;
    tile.run();
  }
  finish_streams();
}

SciLoop sci_loop(bool wide) { return wide ? run_sci<double> : run_sci<float>; }
