// What the loops of the smoothness loss hold of an image, a few rows at a time. Included once for each
// instruction set, inside that set's namespace, after simd.h.

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
