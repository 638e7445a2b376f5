// The loops of the smoothness loss. Included once for each instruction set, inside that set's namespace,
// after simd.h.

// The 1-norm over the channels.
template <class V>
FASTLLIE_INLINE V absolute(const V (&d)[3]) {
  return magnitude(d[0]) + magnitude(d[1]) + magnitude(d[2]);
}

// The conversion of three consecutive values in memory as if they were one pixel, or its transpose: each
// value becomes a sum over its neighbours with factors that recur every three.
template <class T>
struct MemoryOrder {
  Vector<T> taps[3][5], bias[3];

  explicit MemoryOrder(bool transposed) : taps{}, bias{} {
    for (int phase = 0; phase < 3; ++phase) {
      for (int lane = 0; lane < LANES<T>; ++lane) {
        const int j = (phase + lane) % 3;
        for (int i = 0; i < 3; ++i) taps[phase][i - j + 2][lane] = T(transposed ? ycbcr(j, i) : ycbcr(i, j));
        bias[phase][lane] = T(ycbcr_bias(j));
      }
    }
  }

  // For the values from `from` on, of which the first is number `phase` of its three.
  Vector<T> sum(const T* from, int phase) const {
    Vector<T> sum{};
    for (int s = 0; s < 5; ++s) sum += load<Vector<T>>(from + s - 2) * taps[phase][s];
    return sum;
  }
};

// The pixels of a tile and those around them that belong to its pairs, as `T`: three rows at a time, of which
// each holds planes of the illumination, of colours scaled so that a weight is 2^-|difference|^2, and of the
// gradients of both.
template <class T>
class SmoothnessRows {
 public:
  static constexpr int PLANES = 12, ILLUM = 0, COLOUR = 3, GRAD_ILLUM = 6, GRAD_COLOUR = 9;
  // whole vectors, and one more that loads may run into
  static constexpr int64_t PITCH = (TILE_COLUMNS + 2 * REACH) / LANES<T> * LANES<T> + 2 * LANES<T>;

  explicit SmoothnessRows(const SmoothnessTask& task)
      : task_(task),
        scale_(std::sqrt(task.settings.kappa * LOG2_E)),
        order_(false),
        values_((3 * PLANES + 6) * PITCH + 16) {
    const uintptr_t start = reinterpret_cast<uintptr_t>(values_.data());
    base_ = values_.data() + (64 - start % 64) % 64 / sizeof(T);
  }

  // The columns that are held, and the image that they are of.
  void open(int64_t b, int64_t left, int64_t right) {
    b_ = b;
    left_ = left;
    count_ = right - left;
  }
  int64_t count() const { return count_; }

  T* plane(int64_t row, int number) { return base_ + (row % 3 * PLANES + number) * PITCH; }
  // What pairs within one row give their second pixels: apart, so that no load waits for a store beside it.
  T* aside(int number) { return base_ + (3 * PLANES + number) * PITCH; }

  void read(int64_t row) {
    for (int c = 0; c < 3; ++c) {
      const View& illum = task_.illum;
      T* const to = plane(row, ILLUM + c);
      pack<T>(illum.dtype, illum.data, at(illum, c, row), illum.strides[3], count_, to);
      end(to);
    }
    switch (task_.settings.color) {
      case Color::memory:
        return read_memory_order(row);
      case Color::ycbcr:
        read_guide(row);
        return convert(row);
      default:
        read_guide(row);
        return scale(row);
    }
  }

  void clear_gradients(int64_t row) { __builtin_memset(plane(row, GRAD_ILLUM), 0, 6 * PITCH * sizeof(T)); }
  void clear_aside() { __builtin_memset(aside(0), 0, 6 * PITCH * sizeof(T)); }

  // Writes columns `first` to `last` of the gradients of a row.
  void write(int64_t row, int64_t first, int64_t last) {
    for (int n = 0; n < 6; ++n) {
      T* const to = plane(row, GRAD_ILLUM + n);
      const T* const other = aside(n);
      for (int64_t i = 0; i < count_; i += LANES<T>)
        store(to + i, load<Vector<T>>(to + i) + load<Vector<T>>(other + i), false);
    }
    put(task_.grad_illum, task_.stream_illum, row, GRAD_ILLUM, first, last);
    if (!task_.grad_guide.data) return;
    unscale(row);
    put(task_.grad_guide, task_.stream_guide, row, GRAD_COLOUR, first, last);
  }

 private:
  int64_t at(const View& v, int c, int64_t row) const {
    return b_ * v.strides[0] + c * v.strides[1] + row * v.strides[2] + left_ * v.strides[3];
  }

  // Zeros where loads run past the last pixel.
  void end(T* row) { store(row + (count_ + LANES<T> - 1) / LANES<T> * LANES<T>, Vector<T>{}, false); }

  void read_guide(int64_t row) {
    const View& guide = task_.guide;
    for (int c = 0; c < 3; ++c) {
      T* const to = plane(row, COLOUR + c);
      pack<T>(guide.dtype, guide.data, at(guide, c, row), guide.strides[3], count_, to);
      end(to);
    }
  }

  void scale(int64_t row) {
    T* const from = plane(row, COLOUR);
    for (int64_t i = 0; i < 3 * PITCH; i += LANES<T>)
      store(from + i, load<Vector<T>>(from + i) * T(scale_), false);
  }

  void convert(int64_t row) {
    T* const planes[3] = {plane(row, COLOUR), plane(row, COLOUR + 1), plane(row, COLOUR + 2)};
    for (int64_t i = 0; i < count_; i += LANES<T>) {
      Vector<T> rgb[3], colour[3];
      for (int c = 0; c < 3; ++c) rgb[c] = load<Vector<T>>(planes[c] + i) * T(scale_);
      to_ycbcr<T>(rgb, colour);
      for (int c = 0; c < 3; ++c) store(planes[c] + i, colour[c], false);
    }
  }

  // From the gradient of scaled colours to that of the guide's: the slope of a weight is -2 kappa w times the
  // unscaled difference.
  void unscale(int64_t row) {
    T* const planes[3] = {plane(row, GRAD_COLOUR), plane(row, GRAD_COLOUR + 1), plane(row, GRAD_COLOUR + 2)};
    const T factor = T(-2 * std::sqrt(task_.settings.kappa / LOG2_E));
    const bool convert = task_.settings.color == Color::ycbcr;
    for (int64_t i = 0; i < count_; i += LANES<T>) {
      Vector<T> colour[3], rgb[3];
      for (int c = 0; c < 3; ++c) colour[c] = load<Vector<T>>(planes[c] + i) * factor;
      from_ycbcr<T>(colour, rgb);
      for (int c = 0; c < 3; ++c) store(planes[c] + i, convert ? rgb[c] : colour[c], false);
    }
  }

  // Three consecutive values are converted together, wherever a row or plane ends.
  void read_memory_order(int64_t row) {
    const View& guide = task_.guide;
    const Sizes& sizes = task_.settings.sizes;
    const int64_t total = 3 * sizes[2] * sizes[3];
    T values[PITCH + 2 * LANES<T>] = {};
    for (int c = 0; c < 3; ++c) {
      const int64_t first = (c * sizes[2] + row) * sizes[3] + left_;
      // two more on either side, as far as there are
      const int64_t before = first < 2 ? first : 2;
      const int64_t behind = total - first - count_ < 2 ? total - first - count_ : 2;
      pack<T>(guide.dtype, guide.data, b_ * total + first - before, 1, count_ + before + behind,
              values + LANES<T> - before);
      T* const to = plane(row, COLOUR + c);
      for (int64_t i = 0; i < count_; i += LANES<T>) {
        const int phase = int((first + i) % 3);
        store(to + i, (order_.sum(values + LANES<T> + i, phase) + order_.bias[phase]) * T(scale_), false);
      }
      end(to);
    }
  }

  void put(const View& v, bool stream, int64_t row, int number, int64_t first, int64_t last) {
    if (!v.data) return;
    for (int c = 0; c < 3; ++c)
      unpack<T>(plane(row, number + c) + first, v.dtype, v.data, at(v, c, row) + first * v.strides[3],
                v.strides[3], last - first, stream);
  }

  const SmoothnessTask& task_;
  const double scale_;
  const MemoryOrder<T> order_;
  std::vector<T> values_;
  T* base_;
  int64_t b_ = 0, left_ = 0, count_ = 0;
};

// Adds up the pairs of one row with one offset.
template <class T, bool SCALAR>
static void smoothness_pairs(SmoothnessRows<T>& rows, int64_t row, int d, int64_t first, int64_t last,
                             double* sums) {
  using V = Vector<T>;
  const T *const p = rows.plane(row, 0), *const q = rows.plane(row + offset_y(d), 0) + offset_x(d);
  V weights{}, magnitudes{};
  for (int64_t i = first; i < last; i += LANES<T>) {
    V e[3], a[3];
    for (int c = 0; c < 3; ++c) {
      const int64_t colour = (SmoothnessRows<T>::COLOUR + c) * SmoothnessRows<T>::PITCH + i;
      const int64_t illum = (SmoothnessRows<T>::ILLUM + c) * SmoothnessRows<T>::PITCH + i;
      e[c] = load<V>(p + colour) - load<V>(q + colour);
      a[c] = load<V>(p + illum) - load<V>(q + illum);
    }
    V w = exp2_of_minus(squared(e));
    V magnitude = absolute(a);
    if (i + LANES<T> > last) {
      w = keep(w, last - i);
      magnitude = keep(magnitude, last - i);
    }
    if constexpr (SCALAR) {
      weights += w;
      magnitudes += magnitude;
    } else {
      weights += w * magnitude;
    }
  }
  for (int lane = 0; lane < LANES<T>; ++lane) {
    sums[0] += weights[lane];
    if constexpr (SCALAR) sums[1] += magnitudes[lane];
  }
}

template <class T, bool SCALAR>
static void smoothness_forward(const SmoothnessTask& task, int64_t from, int64_t to) {
  const Sizes& sizes = task.settings.sizes;
  const int64_t height = sizes[2], width = sizes[3];
  SmoothnessRows<T> rows(task);
  for (int64_t unit = from; unit < to; ++unit) {
    const Tile tile(unit, sizes);
    const int64_t left = tile.left < REACH ? 0 : tile.left - REACH;
    const int64_t right = tile.right + REACH < width ? tile.right + REACH : width;
    rows.open(tile.b, left, right);
    double sums[OFFSETS][2] = {};
    for (int64_t row = tile.top; row < tile.top + REACH && row < height; ++row) rows.read(row);
    for (int64_t row = tile.top; row < tile.bottom; ++row) {
      if (row + REACH < height) rows.read(row + REACH);
      for (int d = 0; d < OFFSETS; ++d) {
        if (row + offset_y(d) >= height) continue;
        const int dx = offset_x(d);
        const int64_t first = (tile.left > -dx ? tile.left : -dx) - left;
        const int64_t last = (tile.right < width - dx ? tile.right : width - dx) - left;
        smoothness_pairs<T, SCALAR>(rows, row, d, first, last, sums[d]);
      }
    }
    double* const part = task.parts + unit * (SCALAR ? 2 * OFFSETS : 1);
    part[0] = 0;
    for (int d = 0; d < OFFSETS; ++d) {
      const double mean = 1 / double(pairs_of(sizes.data(), d));
      if constexpr (SCALAR) {
        part[d] = sums[d][0] * mean;
        part[OFFSETS + d] = sums[d][1] * mean / 3;
      } else {
        part[0] += sums[d][0] * mean;
      }
    }
  }
}

// Adds to the gradients what the pairs of one row with the offsets D give both of their pixels. The partners
// of different offsets lie in different rows, so that the first pixels are read and written once.
template <class T, bool SCALAR, bool GUIDE, int... D>
static void smoothness_pairs_backward(const SmoothnessTask& task, SmoothnessRows<T>& rows, int64_t row) {
  using V = Vector<T>;
  using Rows = SmoothnessRows<T>;
  constexpr int COUNT = sizeof...(D);
  constexpr int ORDER[COUNT] = {D...};
  const int64_t n = rows.count();
  int64_t first = 0, whole = n, most = 0, ends[COUNT];
  // planes lie a constant apart: one pointer a row, and no store makes the compiler read it again
  T* const p = rows.plane(row, 0);
  const T* q[COUNT];
  T* grad_q[COUNT];
  V illum_factors[COUNT], guide_factors[COUNT];
  for (int g = 0; g < COUNT; ++g) {
    const int dy = offset_y(ORDER[g]), dx = offset_x(ORDER[g]);
    if (-dx > first) first = -dx;
    ends[g] = dx > 0 ? n - dx : n;
    whole = ends[g] < whole ? ends[g] : whole;
    most = ends[g] > most ? ends[g] : most;
    q[g] = rows.plane(row + dy, 0) + dx;
    grad_q[g] = (dy == 0 ? rows.aside(0) : rows.plane(row + dy, Rows::GRAD_ILLUM)) + dx;
    illum_factors[g] = broadcast<V>(T(task.illum_factors[ORDER[g]]));
    guide_factors[g] = broadcast<V>(T(task.guide_factors[ORDER[g]]));
  }
  const auto step = [&](int64_t i, auto full) __attribute__((always_inline)) {
    V o[3], f[3], grad_o[3], grad_f[3];
    for (int c = 0; c < 3; ++c) {
      o[c] = load<V>(p + (Rows::ILLUM + c) * Rows::PITCH + i);
      f[c] = load<V>(p + (Rows::COLOUR + c) * Rows::PITCH + i);
      grad_o[c] = load<V>(p + (Rows::GRAD_ILLUM + c) * Rows::PITCH + i);
      if constexpr (GUIDE) grad_f[c] = load<V>(p + (Rows::GRAD_COLOUR + c) * Rows::PITCH + i);
    }
    for (int g = 0; g < COUNT; ++g) {
      V illum_factor = illum_factors[g], guide_factor = guide_factors[g];
      if constexpr (!full.value) {
        illum_factor = keep(illum_factor, ends[g] - i);
        guide_factor = keep(guide_factor, ends[g] - i);
      }
      V e[3], a[3];
      for (int c = 0; c < 3; ++c) {
        e[c] = f[c] - load<V>(q[g] + (Rows::COLOUR + c) * Rows::PITCH + i);
        a[c] = o[c] - load<V>(q[g] + (Rows::ILLUM + c) * Rows::PITCH + i);
      }
      const V w = !SCALAR || GUIDE ? exp2_of_minus(squared(e)) : V{};
      const V slope = SCALAR ? illum_factor : illum_factor * w;
      for (int c = 0; c < 3; ++c) {
        const V s = with_sign(slope, a[c]);
        T* const at = grad_q[g] + c * Rows::PITCH + i;
        grad_o[c] += s;
        store(at, load<V>(at) - s, false);
      }
      if constexpr (GUIDE) {
        const V t = SCALAR ? guide_factor * w : slope * absolute(a);
        for (int c = 0; c < 3; ++c) {
          T* const at = grad_q[g] + (3 + c) * Rows::PITCH + i;
          grad_f[c] += t * e[c];
          store(at, load<V>(at) - t * e[c], false);
        }
      }
    }
    for (int c = 0; c < 3; ++c) {
      store(p + (Rows::GRAD_ILLUM + c) * Rows::PITCH + i, grad_o[c], false);
      if constexpr (GUIDE) store(p + (Rows::GRAD_COLOUR + c) * Rows::PITCH + i, grad_f[c], false);
    }
  };
  int64_t i = first;
  for (; i + LANES<T> <= whole; i += LANES<T>) step(i, std::true_type{});
  for (; i < most; i += LANES<T>) step(i, std::false_type{});
}

template <class T, bool SCALAR, bool GUIDE>
static void smoothness_backward(const SmoothnessTask& task, int64_t from, int64_t to) {
  const Sizes& sizes = task.settings.sizes;
  const int64_t height = sizes[2], width = sizes[3];
  SmoothnessRows<T> rows(task);
  for (int64_t unit = from; unit < to; ++unit) {
    const Tile tile(unit, sizes);
    // with the pixels around it: pairs across the border of two tiles are worked out in both
    const int64_t left = tile.left < REACH ? 0 : tile.left - REACH;
    const int64_t right = tile.right + REACH < width ? tile.right + REACH : width;
    const int64_t top = tile.top < REACH ? 0 : tile.top - REACH;
    const int64_t bottom = tile.bottom + REACH < height ? tile.bottom + REACH : height;
    rows.open(tile.b, left, right);
    for (int64_t row = top; row < top + REACH && row < bottom; ++row) {
      rows.read(row);
      rows.clear_gradients(row);
    }
    for (int64_t row = top; row < tile.bottom; ++row) {
      rows.clear_aside();
      if (row + REACH < bottom) {
        rows.read(row + REACH);
        rows.clear_gradients(row + REACH);
      }
      const int64_t below = bottom - 1 - row;
      if (below >= 2) {
        smoothness_pairs_backward<T, SCALAR, GUIDE, 0, 4, 9>(task, rows, row);
        smoothness_pairs_backward<T, SCALAR, GUIDE, 1, 5, 10>(task, rows, row);
        smoothness_pairs_backward<T, SCALAR, GUIDE, 3, 8>(task, rows, row);
        smoothness_pairs_backward<T, SCALAR, GUIDE, 6, 11>(task, rows, row);
        smoothness_pairs_backward<T, SCALAR, GUIDE, 2, 7>(task, rows, row);
      } else if (below == 1) {
        smoothness_pairs_backward<T, SCALAR, GUIDE, 0, 4>(task, rows, row);
        smoothness_pairs_backward<T, SCALAR, GUIDE, 1, 5>(task, rows, row);
        smoothness_pairs_backward<T, SCALAR, GUIDE, 3>(task, rows, row);
        smoothness_pairs_backward<T, SCALAR, GUIDE, 6>(task, rows, row);
        smoothness_pairs_backward<T, SCALAR, GUIDE, 2>(task, rows, row);
      } else {
        smoothness_pairs_backward<T, SCALAR, GUIDE, 0>(task, rows, row);
        smoothness_pairs_backward<T, SCALAR, GUIDE, 1>(task, rows, row);
      }
      if (row >= tile.top) rows.write(row, tile.left - left, tile.right - left);
    }
  }
  finish_streams();
}

template <class T>
static SmoothnessLoop pick_smoothness(bool backward, const SmoothnessTask& task) {
  const bool scalar = task.settings.scalar;
  if (!backward) return scalar ? smoothness_forward<T, true> : smoothness_forward<T, false>;
  if (task.grad_guide.data)
    return scalar ? smoothness_backward<T, true, true> : smoothness_backward<T, false, true>;
  return scalar ? smoothness_backward<T, true, false> : smoothness_backward<T, false, false>;
}

// Takes gradients of colours in memory order back to those of the values, in place or not.
template <class T>
static void memory_order_backward(const View& grad_colours, const View& grad_guide, int64_t total,
                                  int64_t from, int64_t to) {
  const MemoryOrder<T> order(true);
  constexpr int64_t COUNT = 3 * MEMORY_ORDER_TRIPLES;
  T values[COUNT + 2 * LANES<T>] = {}, sums[COUNT];
  for (int64_t unit = from; unit < to; ++unit) {
    const int64_t first = unit * COUNT;
    const int64_t count = total - first < COUNT ? total - first : COUNT;
    pack<T>(grad_colours.dtype, grad_colours.data, first, 1, count, values + LANES<T>);
    for (int64_t i = 0; i < count; i += LANES<T>)
      store(sums + i, order.sum(values + LANES<T> + i, int(i % 3)), false);
    unpack<T>(sums, grad_guide.dtype, grad_guide.data, first, 1, count, false);
  }
}

MemoryOrderLoop memory_order_loop(bool wide) {
  return wide ? memory_order_backward<double> : memory_order_backward<float>;
}

SmoothnessLoop smoothness_loop(bool backward, const SmoothnessTask& task) {
  return task.illum.dtype == Dtype::f64 ? pick_smoothness<double>(backward, task)
                                        : pick_smoothness<float>(backward, task);
}
