// The loops of the zero-reference losses. Included once for each instruction set, inside that set's
// namespace, after transpose.h.

// Rows of a strip's maps as `T`, each map with the pixel before the strip and the one behind it: the row that
// is worked on and those above and below it. Strips of channels that lie side by side are read and written in
// the order of memory, and turned into planes in the cache.
template <class T>
class MapRows {
 public:
  static constexpr int64_t PITCH = STRIP_COLUMNS + 2 * LANES<T>;

  explicit MapRows(const ZeroReferenceTask& task)
      : task_(task),
        maps_(task.curve.shared ? 3 : 3 * task.curve.steps),
        values_((3 * maps_ * PITCH) + 2 * (maps_ * STRIP_COLUMNS) + maps_ + LANES<T> + 64) {
    const uintptr_t start = reinterpret_cast<uintptr_t>(values_.data());
    base_ = values_.data() + (64 - start % 64) % 64 / sizeof(T);
    grads_ = base_ + 3 * maps_ * PITCH;
    mixed_ = grads_ + maps_ * STRIP_COLUMNS;
    edge_ = mixed_ + maps_ * STRIP_COLUMNS;
  }

  void open(const Strip& strip) {
    strip_ = strip;
    count_ = strip.right - strip.left;
  }

  // The first pixel of a row's first map; its other maps lie PITCH apart.
  const T* row(int64_t row) const { return base_ + row % 3 * maps_ * PITCH + LANES<T>; }
  // Of the gradients of one row; maps lie STRIP_COLUMNS apart.
  T* grads() { return grads_; }

  void read(int64_t row) {
    const View& alpha = task_.alpha;
    T* const to = base_ + row % 3 * maps_ * PITCH + LANES<T>;
    if (mixes(alpha)) {
      pack<T>(alpha.dtype, alpha.data, at(alpha, row, 0), 1, count_ * maps_, mixed_);
      to_planes(mixed_, maps_, count_, to, PITCH);
    } else if (maps_ == 3) {
      T* const planes[3] = {to, to + PITCH, to + 2 * PITCH};
      pack_rgb<T>(alpha, at(alpha, row, 0), count_, planes);
    } else {
      for (int64_t m = 0; m < maps_; ++m)
        pack<T>(alpha.dtype, alpha.data, at(alpha, row, 0) + m * alpha.strides[1], alpha.strides[3], count_,
                to + m * PITCH);
    }
    if (task_.curve.tanh) {
      for (int64_t m = 0; m < maps_; ++m) take_tanh(to + m * PITCH, count_);
    }
    // at the border of the image a pixel is its own neighbour
    read_edge(row, strip_.left > 0 ? -1 : 0, to - 1);
    // zeros behind the last one have no differences that would be added up
    if (task_.parts) return;
    read_edge(row, strip_.right < task_.curve.sizes[3] ? count_ : count_ - 1, to + count_);
  }

  void write(int64_t row) {
    const View& out = task_.grad_alpha;
    if (mixes(out)) {
      from_planes(grads_, STRIP_COLUMNS, maps_, count_, mixed_);
      unpack<T>(mixed_, out.dtype, out.data, at(out, row, 0), 1, count_ * maps_, task_.stream_alpha);
    } else if (maps_ == 3) {
      const T* const planes[3] = {grads_, grads_ + STRIP_COLUMNS, grads_ + 2 * STRIP_COLUMNS};
      unpack_rgb<T>(planes, out, at(out, row, 0), count_, task_.stream_alpha);
    } else {
      for (int64_t m = 0; m < maps_; ++m)
        unpack<T>(grads_ + m * STRIP_COLUMNS, out.dtype, out.data, at(out, row, 0) + m * out.strides[1],
                  out.strides[3], count_, task_.stream_alpha);
    }
  }

 private:
  int64_t at(const View& v, int64_t row, int64_t column) const {
    return strip_.b * v.strides[0] + row * v.strides[2] + (strip_.left + column) * v.strides[3];
  }

  bool mixes(const View& v) const {
    return v.strides[1] == 1 && v.strides[3] == maps_ && has_squares<T>(maps_);
  }

  void read_edge(int64_t row, int64_t column, T* to) {
    const View& alpha = task_.alpha;
    pack<T>(alpha.dtype, alpha.data, at(alpha, row, column), alpha.strides[1], maps_, edge_);
    if (task_.curve.tanh) take_tanh(edge_, maps_);
    for (int64_t m = 0; m < maps_; ++m) to[m * PITCH] = edge_[m];
  }

  static void take_tanh(T* values, int64_t count) {
    const Vector<T> one = broadcast<Vector<T>>(1);
    for (int64_t i = 0; i < count; i += LANES<T>)
      store(values + i, tanh_of(load<Vector<T>>(values + i), one), false);
  }

  const ZeroReferenceTask& task_;
  const int64_t maps_;
  std::vector<T> values_;
  T *base_, *grads_, *mixed_, *edge_;
  Strip strip_{0, Sizes{1, 3, 1, 1}};
  int64_t count_ = 0;
};

template <class T>
static double sum_of_lanes(Vector<T> v) {
  double sum = 0;
  for (int lane = 0; lane < LANES<T>; ++lane) sum += v[lane];
  return sum;
}

// Means of regions of `side` columns, from the sums of their columns, which start anew.
template <class T>
static void take_means(T* columns, int64_t side, int64_t count, T* to) {
  for (int64_t j = 0; j < count; ++j) {
    double sum = 0;
    for (int64_t i = j * side; i < (j + 1) * side; ++i) sum += columns[i];
    to[j] = T(sum / double(3 * side * side));
  }
  __builtin_memset(columns, 0, STRIP_COLUMNS * sizeof(T));
}

// A row of the image through the curve into sums. STEPS is 0 where they are not known.
template <class T, bool SHARED, int STEPS>
static void zero_reference_row(const ZeroReferenceTask& task, const T* image, const T* maps, const T* above,
                               int64_t count, T* cells, T* patches, double* sums) {
  using V = Vector<T>;
  constexpr int64_t PITCH = MapRows<T>::PITCH;
  const int64_t steps = STEPS ? STEPS : task.curve.steps;
  V means[3] = {}, vertical[3] = {}, horizontal[3] = {};
  for (int64_t i = 0; i < count; i += LANES<T>) {
    V grey{}, change{};
    for (int c = 0; c < 3; ++c) {
      const V x = load<V>(image + c * STRIP_COLUMNS + i);
      V y = x, a{};
      for (int64_t k = 0; k < steps; ++k) {
        if (k == 0 || !SHARED) {
          const int64_t at = (3 * k + c) * PITCH + i;
          a = load<V>(maps + at);
          const V down = a - load<V>(above + at);
          V across = a - load<V>(maps + at - 1);
          if (i + LANES<T> > count) across = keep(across, count - i);
          vertical[c] += down * down;
          horizontal[c] += across * across;
        }
        y = curve_step(y, a);
      }
      means[c] += y;
      grey += y;
      change += y - x;
    }
    store(cells + i, load<V>(cells + i) + change, false);
    store(patches + i, load<V>(patches + i) + grey, false);
  }
  for (int c = 0; c < 3; ++c) {
    sums[c] += sum_of_lanes<T>(means[c]);
    sums[3] += sum_of_lanes<T>(vertical[c]);
    sums[4] += sum_of_lanes<T>(horizontal[c]);
  }
}

template <class T>
FASTLLIE_INLINE int64_t offset_of(const View& v, const Strip& strip, int64_t row) {
  return strip.b * v.strides[0] + row * v.strides[2] + strip.left * v.strides[3];
}

template <class T, bool SHARED, int STEPS>
static void zero_reference_forward(const ZeroReferenceTask& task, int64_t from, int64_t to) {
  const Sizes& sizes = task.curve.sizes;
  MapRows<T> rows(task);
  alignas(64) T image[3 * STRIP_COLUMNS], cells[STRIP_COLUMNS], patches[STRIP_COLUMNS];
  T* const planes[3] = {image, image + STRIP_COLUMNS, image + 2 * STRIP_COLUMNS};
  for (int64_t unit = from; unit < to; ++unit) {
    const Strip strip(unit, sizes);
    const int64_t count = strip.right - strip.left;
    rows.open(strip);
    double* const sums = task.parts + unit * 5;
    for (int i = 0; i < 5; ++i) sums[i] = 0;
    __builtin_memset(cells, 0, sizeof cells);
    __builtin_memset(patches, 0, sizeof patches);
    if (strip.top > 0) rows.read(strip.top - 1);
    for (int64_t row = strip.top; row < strip.bottom; ++row) {
      rows.read(row);
      pack_rgb<T>(task.x, offset_of<T>(task.x, strip, row), count, planes);
      const T* const above = rows.row(row > 0 ? row - 1 : 0);
      zero_reference_row<T, SHARED, STEPS>(task, image, rows.row(row), above, count, cells, patches, sums);
      const auto finish = [&](T* columns, int64_t side, void* out) {
        if ((row + 1) % side) return;
        const int64_t at = (strip.b * (sizes[2] / side) + row / side) * (sizes[3] / side) + strip.left / side;
        take_means(columns, side, count / side, static_cast<T*>(out) + at);
      };
      finish(cells, CELL, task.cells);
      finish(patches, PATCH, task.patches);
    }
  }
}

// The rows of one pass backwards: where a strip's maps and their neighbours are held.
template <class T>
struct Around {
  const T *maps, *above, *below;
  T* grads;  // or null
  Vector<T> vertical, horizontal;
};

// From the gradients of so many pixels of channel `c` to those of the maps, back to that of the image.
template <class T, bool SHARED, bool TANH>
FASTLLIE_INLINE Vector<T> zero_reference_pixels(const ZeroReferenceTask& task, const Around<T>& around,
                                                int64_t steps, int c, int64_t i, Vector<T> x,
                                                Vector<T> grad) {
  using V = Vector<T>;
  constexpr int64_t PITCH = MapRows<T>::PITCH;
  const V one = broadcast<V>(1);
  const auto place = [=](int64_t k) { return ((SHARED ? 0 : 3 * k) + c) * PITCH + i; };
  const auto finish = [&](int64_t k, V a, V grad_a) __attribute__((always_inline)) {
    const T *const here = around.maps + place(k), *const up = around.above + place(k),
                   *const down = around.below + place(k);
    grad_a += variation_slope(a, load<V>(up), load<V>(down), load<V>(here - 1), load<V>(here + 1),
                              around.vertical, around.horizontal);
    if constexpr (TANH) grad_a *= one - a * a;
    store(around.grads + ((SHARED ? 0 : 3 * k) + c) * STRIP_COLUMNS + i, grad_a, false);
  };
  V grad_shared{};
  // more steps than a chunk: the state before each chunk is recomputed from the image, at no memory
  for (int64_t first = (steps - 1) / CHUNK * CHUNK; first >= 0; first -= CHUNK) {
    V y = x, state[CHUNK];
    for (int64_t k = 0; k < first; ++k) y = curve_step(y, load<V>(around.maps + place(k)));
    const int count = steps - first < CHUNK ? int(steps - first) : CHUNK;
    for (int k = 0; k < count; ++k) {
      state[k] = y;
      y = curve_step(y, load<V>(around.maps + place(first + k)));
    }
    for (int k = count - 1; k >= 0; --k) {
      const V a = load<V>(around.maps + place(first + k));
      const V grad_a = curve_step_backward(state[k], a, one, grad);
      if constexpr (SHARED) {
        grad_shared += grad_a;
      } else {
        if (around.grads) finish(first + k, a, grad_a);
      }
    }
  }
  if constexpr (SHARED) {
    if (around.grads) finish(0, load<V>(around.maps + place(0)), grad_shared);
  }
  return grad;
}

template <class T, bool SHARED, bool TANH, int STEPS>
static void zero_reference_backward(const ZeroReferenceTask& task, int64_t from, int64_t to) {
  using V = Vector<T>;
  const Sizes& sizes = task.curve.sizes;
  const int64_t height = sizes[2], cells_down = height / CELL, cells_across = sizes[3] / CELL;
  const int64_t steps = STEPS ? STEPS : task.curve.steps;
  MapRows<T> rows(task);
  alignas(64) T image[3 * STRIP_COLUMNS], slopes[2][STRIP_COLUMNS];
  T* const planes[3] = {image, image + STRIP_COLUMNS, image + 2 * STRIP_COLUMNS};
  for (int64_t unit = from; unit < to; ++unit) {
    const Strip strip(unit, sizes);
    const int64_t count = strip.right - strip.left;
    const T* const channels = static_cast<const T*>(task.channels) + strip.b * 3;
    rows.open(strip);
    if (strip.top > 0) rows.read(strip.top - 1);
    rows.read(strip.top);
    for (int64_t row = strip.top; row < strip.bottom; ++row) {
      if (row + 1 < height) rows.read(row + 1);
      pack_rgb<T>(task.x, offset_of<T>(task.x, strip, row), count, planes);
      if (row % CELL == 0) {
        for (int n = 0; n < 2; ++n) {
          const T* const cells = static_cast<const T*>(task.slopes) +
                                 ((strip.b * 2 + n) * cells_down + row / CELL) * cells_across;
          for (int64_t i = 0; i < STRIP_COLUMNS; ++i) {
            const int64_t column = (strip.left + i) / CELL;
            slopes[n][i] = row / CELL < cells_down && column < cells_across ? cells[column] : T(0);
          }
        }
      }
      const Around<T> around{rows.row(row),
                             rows.row(row > 0 ? row - 1 : 0),
                             rows.row(row + 1 < height ? row + 1 : row),
                             task.grad_alpha.data ? rows.grads() : nullptr,
                             broadcast<V>(T(task.vertical)),
                             broadcast<V>(T(task.horizontal))};
      for (int c = 0; c < 3; ++c) {
        for (int64_t i = 0; i < count; i += LANES<T>) {
          const V grad = zero_reference_pixels<T, SHARED, TANH>(
              task, around, steps, c, i, load<V>(planes[c] + i), load<V>(slopes[0] + i) + channels[c]);
          store(planes[c] + i, grad + load<V>(slopes[1] + i), false);
        }
      }
      if (task.grad_alpha.data) rows.write(row);
      if (task.grad_x.data)
        unpack_rgb<T>(planes, task.grad_x, offset_of<T>(task.grad_x, strip, row), count, task.stream_x);
    }
  }
  finish_streams();
}

template <class T, bool SHARED, int STEPS>
static ZeroReferenceLoop pick_zero_reference(bool backward, bool tanh) {
  if (!backward) return zero_reference_forward<T, SHARED, STEPS>;
  return tanh ? zero_reference_backward<T, SHARED, true, STEPS>
              : zero_reference_backward<T, SHARED, false, STEPS>;
}

template <class T>
static ZeroReferenceLoop pick_zero_reference(bool backward, const Curve& curve) {
  if (curve.shared) return pick_zero_reference<T, true, 0>(backward, curve.tanh);
  if (curve.steps == CHUNK) return pick_zero_reference<T, false, CHUNK>(backward, curve.tanh);
  return pick_zero_reference<T, false, 0>(backward, curve.tanh);
}

ZeroReferenceLoop zero_reference_loop(bool backward, const ZeroReferenceTask& task) {
  return task.x.dtype == Dtype::f64 ? pick_zero_reference<double>(backward, task.curve)
                                    : pick_zero_reference<float>(backward, task.curve);
}
