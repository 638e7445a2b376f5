// The loops of the smoothness loss. Included once for each instruction set, inside that set's namespace,
// after smoothness_rows_loops.h.

// The 1-norm over the channels.
template <class V>
FASTLLIE_INLINE V absolute(const V (&d)[3]) {
  return magnitude(d[0]) + magnitude(d[1]) + magnitude(d[2]);
}

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
