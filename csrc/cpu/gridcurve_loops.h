// The loops of the curve in a bilateral grid. Included once for each instruction set, inside that set's
// namespace, after pack.h.
//
// Pixels between the middles of the same two columns are worked on together: all of them read the same
// values of the grid, and what they read is broadcast. Of the lumas only those that a vector's pixels lie
// between are looked at: most pictures change slowly.

// Lanes whose number differs in one bit are exchanged.
template <int STEP>
struct Exchanged {
  static constexpr int at(int i) { return i ^ STEP; }
};

// All lanes combined, by halves.
template <int STEP, class T, class Combine>
FASTLLIE_INLINE T across_lanes(Vector<T> v, const Combine& combine) {
  if constexpr (STEP == 0) {
    return v[0];
  } else {
    constexpr std::make_index_sequence<LANES<T>> lanes{};
    return across_lanes<STEP / 2, T>(combine(v, shuffle<Exchanged<STEP>>(v, v, lanes)), combine);
  }
}

template <class V>
FASTLLIE_INLINE V whole_part(V v) {
  if constexpr (sizeof(v[0]) == 4) {
    return __builtin_convertvector(__builtin_convertvector(v, i32v), V);
  } else {
    return __builtin_convertvector(__builtin_convertvector(v, i64v), V);
  }
}

// What the pixels of one vector see of the grid.
template <class T>
struct GridPixels {
  Vector<T> height, share;  // between the first and the last luma; of the column behind
  int64_t first, last;      // lumas that any of them lies between

  __attribute__((always_inline)) GridPixels(Vector<T> guide, Vector<T> share, int64_t lumas, Vector<T> one)
      : share(share) {
    using V = Vector<T>;
    const V zero{};
    height = Bounds::at_most(Bounds::at_least(guide, zero), one) * T(lumas - 1);
    // a NaN has no place
    const V placed = height == height ? height : zero;
    constexpr int HALF = LANES<T> / 2;
    const T low = across_lanes<HALF, T>(placed, [](V a, V b) { return Bounds::at_most(a, b); });
    const T high = across_lanes<HALF, T>(placed, [](V a, V b) { return Bounds::at_least(a, b); });
    first = lumas > 1 ? smaller(int64_t(low), lumas - 2) : 0;
    last = lumas > 1 ? std::max(first + 1, smaller(int64_t(high) + 1, lumas - 1)) : 0;
  }

  FASTLLIE_INLINE Vector<T> weight(const GridPixels& pixels, int64_t luma, Vector<T> one) {
    return Bounds::at_least(one - magnitude(pixels.height - T(luma)), Vector<T>{});
  }
};

// Which shares the pixels from column `w` of the image on have of the cell behind a gap.
template <class T>
struct GridShares {
  double first, further;
  Vector<T> lanes;

  GridShares(const GridCurve& curve, int64_t gap, int64_t w) {
    const double columns = double(curve.cells[2]), whole = double(curve.whole[1]);
    further = columns > 1 ? columns / whole : 0;
    first = (double(curve.place[1] + w) + 0.5 - (double(gap) + 0.5) * whole / columns) * further;
    for (int i = 0; i < LANES<T>; ++i) lanes[i] = T(i) * T(further);
  }
  Vector<T> at(int64_t at) const {
    const Vector<T> share = lanes + T(first + double(at) * further), zero{};
    return Bounds::at_most(Bounds::at_least(share, zero), zero + 1);
  }
};

// The grid along a row of the picture: of each column [lumas, 6], and what the next column has more.
template <class T>
class GridStripes {
 public:
  explicit GridStripes(const GridCurve& curve)
      : curve_(curve), column_(curve.cells[0] * GRID_PLANES), values_(2 * curve.cells[2] * column_) {}

  // Between two rows of cells, of the later of which the row of the picture has a share.
  void open(const T* grid, int64_t gap, T share) {
    const int64_t row = curve_.cells[2] * column_;
    const T* const upper = grid + gap * row;
    const T* const lower = curve_.cells[1] > 1 ? upper + row : upper;
    for (int64_t i = 0; i < row; ++i) values_[i] = upper[i] + share * (lower[i] - upper[i]);
    for (int64_t i = 0; i + column_ < row; ++i) values_[row + i] = values_[i + column_] - values_[i];
  }

  const T* values(int64_t gap) const { return values_.data() + gap * column_; }
  const T* steps(int64_t gap) const { return values(gap) + curve_.cells[2] * column_; }

 private:
  const GridCurve& curve_;
  int64_t column_;
  std::vector<T> values_;
};

// Values of the six planes, and where SLOPES what they grow by from one luma to the next.
template <class T, bool SLOPES>
FASTLLIE_INLINE void grid_look_up(const GridStripes<T>& stripes, int64_t gap, const GridPixels<T>& pixels,
                                  int64_t lumas, Vector<T> one, Vector<T> (&values)[GRID_PLANES],
                                  Vector<T> (&slopes)[GRID_PLANES]) {
  using V = Vector<T>;
  const V zero{}, below = whole_part(Bounds::at_most(pixels.height, zero + T(lumas > 1 ? lumas - 2 : 0)));
  for (int p = 0; p < GRID_PLANES; ++p) values[p] = slopes[p] = zero;
  for (int64_t l = pixels.first; l <= pixels.last; ++l) {
    const T* const here = stripes.values(gap) + l * GRID_PLANES;
    const T* const more = stripes.steps(gap) + l * GRID_PLANES;
    const V weight = GridPixels<T>::weight(pixels, l, one);
    const V slope = below == T(l) ? -one : below == T(l - 1) ? one : zero;
#pragma GCC unroll 6
    for (int p = 0; p < GRID_PLANES; ++p) {
      const V value = pixels.share * more[p] + here[p];
      values[p] += weight * value;
      if constexpr (SLOPES) slopes[p] += slope * value;
    }
  }
}

// A piece of a row: pixels packed side by side in the type of the arithmetic.
template <class T>
struct GridPiece {
  static constexpr int64_t PITCH = PACKED_PIXELS;
  alignas(64) T values[11 * PITCH];

  T* x(int c) { return values + c * PITCH; }
  T* guide() { return values + 3 * PITCH; }
  T* out(int c) { return values + (4 + c) * PITCH; }
  T* grad(int c) { return values + (7 + c) * PITCH; }
  T* grad_guide() { return values + 10 * PITCH; }
};

// Sums over the pixels of a piece and those after it, of each luma and plane, before and behind the gap.
template <class T>
class GridSums {
 public:
  explicit GridSums(int64_t lumas) : values_(2 * lumas * GRID_PLANES * LANES<T>), first_(lumas), last_(-1) {}

  FASTLLIE_INLINE void add(GridSums& sums, const GridPixels<T>& pixels, Vector<T> one,
                           const Vector<T> (&grads)[GRID_PLANES]) {
    sums.first_ = smaller(sums.first_, pixels.first);
    sums.last_ = std::max(sums.last_, pixels.last);
    for (int64_t l = pixels.first; l <= pixels.last; ++l) {
      const Vector<T> weight = GridPixels<T>::weight(pixels, l, one);
      const Vector<T> behind = weight * pixels.share, before = weight - behind;
      T* const to = sums.values_.data() + 2 * l * GRID_PLANES * LANES<T>;
#pragma GCC unroll 6
      for (int p = 0; p < GRID_PLANES; ++p) {
        T *const left = to + 2 * p * LANES<T>, *const right = left + LANES<T>;
        store(left, load<Vector<T>>(left) + before * grads[p], false);
        store(right, load<Vector<T>>(right) + behind * grads[p], false);
      }
    }
  }

  // Adds them to those of the four cells around, [2, 2, lumas, 6], and starts anew.
  void take(double* parts, int64_t lumas, double share) {
    using V = Vector<T>;
    const int64_t column = lumas * GRID_PLANES;
    for (int64_t i = 2 * first_ * GRID_PLANES; i < 2 * (last_ + 1) * GRID_PLANES; ++i) {
      T* const lanes = values_.data() + i * LANES<T>;
      const double sum = across_lanes<LANES<T> / 2, T>(load<V>(lanes), [](V a, V b) { return a + b; });
      double* const to = parts + i % 2 * column + i / 2;
      to[0] += sum * (1 - share);
      to[2 * column] += sum * share;
      store(lanes, V{}, false);
    }
    first_ = lumas;
    last_ = -1;
  }

 private:
  std::vector<T> values_;
  int64_t first_, last_;
};

template <class T>
static void grid_forward_piece(const GridCurveTask& task, const GridStripes<T>& stripes, int64_t gap,
                               const GridShares<T>& shares, GridPiece<T>& piece, int64_t count) {
  using V = Vector<T>;
  const V one = broadcast<V>(1);
  const int64_t lumas = task.curve.cells[0], steps = task.curve.steps;
  for (int64_t at = 0; at < count; at += LANES<T>) {
    const GridPixels<T> pixels(load<V>(piece.guide() + at), shares.at(at), lumas, one);
    V values[GRID_PLANES], slopes[GRID_PLANES];
    grid_look_up<T, false>(stripes, gap, pixels, lumas, one, values, slopes);
    for (int c = 0; c < 3; ++c)
      store(piece.out(c) + at, grid_curve(load<V>(piece.x(c) + at), values[c], values[3 + c], steps, one),
            false);
  }
}

template <class T>
static void grid_backward_piece(const GridCurveTask& task, const GridStripes<T>& stripes, int64_t gap,
                                const GridShares<T>& shares, GridPiece<T>& piece, int64_t count,
                                GridSums<T>& sums) {
  using V = Vector<T>;
  const V zero{}, one = broadcast<V>(1);
  const int64_t lumas = task.curve.cells[0], steps = task.curve.steps;
  for (int64_t at = 0; at < count; at += LANES<T>) {
    const V guide = load<V>(piece.guide() + at);
    const GridPixels<T> pixels(guide, shares.at(at), lumas, one);
    V values[GRID_PLANES], slopes[GRID_PLANES], grads[GRID_PLANES], grad_guide{};
    grid_look_up<T, true>(stripes, gap, pixels, lumas, one, values, slopes);
    for (int c = 0; c < 3; ++c) {
      V grad_x;
      grid_curve_backward(load<V>(piece.x(c) + at), values[c], values[3 + c], steps, one,
                          load<V>(piece.grad(c) + at), grad_x, grads[c], grads[3 + c]);
      store(piece.out(c) + at, grad_x, false);
    }
    for (int p = 0; p < GRID_PLANES; ++p) grad_guide += grads[p] * slopes[p];
    const auto idle = (guide >= zero) & (guide <= one);
    store(piece.grad_guide() + at, idle ? grad_guide * T(lumas - 1) : zero, false);
    if (!task.parts) continue;
    if (at + LANES<T> > count) {
      for (int p = 0; p < GRID_PLANES; ++p) grads[p] = keep(grads[p], count - at);
    }
    GridSums<T>::add(sums, pixels, one, grads);
  }
}

template <class T, bool BACKWARD>
static void run_gridcurve(const GridCurveTask& task, int64_t from, int64_t to) {
  const GridCurve& curve = task.curve;
  // one by one: C++17 lets no lambda use the names of a structured binding, and clang holds to it
  const int64_t lumas = curve.cells[0], rows = curve.cells[1], columns = curve.cells[2];
  const int64_t height = curve.sizes[2], width = curve.sizes[3], column = lumas * GRID_PLANES;
  const int64_t row_gaps = grid_gaps(rows), column_gaps = grid_gaps(columns);
  GridStripes<T> stripes(curve);
  GridPiece<T> piece;
  GridSums<T> sums(lumas);
  T* const x[3] = {piece.x(0), piece.x(1), piece.x(2)};
  T* const out[3] = {piece.out(0), piece.out(1), piece.out(2)};
  T* const grad[3] = {piece.grad(0), piece.grad(1), piece.grad(2)};
  for (int64_t unit = from; unit < to; ++unit) {
    const int64_t b = unit / (row_gaps * task.bands), row_gap = unit / task.bands % row_gaps;
    const auto begin = [&](int64_t gap) {
      return grid_gap_begin(gap, curve.place[0], height, curve.whole[0], rows);
    };
    const int64_t top = begin(row_gap), count = begin(row_gap + 1) - top, band = unit % task.bands;
    const T* const grid = static_cast<const T*>(task.grid) + b * rows * columns * column;
    double* const parts = task.parts ? task.parts + unit * column_gaps * 4 * column : nullptr;
    if (parts) __builtin_memset(parts, 0, column_gaps * 4 * column * sizeof(double));
    for (int64_t r = top + count * band / task.bands; r < top + count * (band + 1) / task.bands; ++r) {
      const double row_share = grid_share<double>(curve.place[0] + r, row_gap, curve.whole[0], rows);
      stripes.open(grid, row_gap, T(row_share));
      for (int64_t gap = 0; gap < column_gaps; ++gap) {
        const auto edge = [&](int64_t gap) {
          return grid_gap_begin(gap, curve.place[1], width, curve.whole[1], columns);
        };
        const int64_t end = edge(gap + 1);
        int64_t w = edge(gap);
        if (w == end) continue;
        for (; w < end; w += PACKED_PIXELS) {
          const int64_t some = smaller(end - w, PACKED_PIXELS);
          const GridShares<T> shares(curve, gap, w);
          const auto at = [&](const View& v) {
            return b * v.strides[0] + r * v.strides[2] + w * v.strides[3];
          };
          pack_rgb<T>(task.x, at(task.x), some, x);
          pack<T>(task.guide.dtype, task.guide.data, at(task.guide), task.guide.strides[3], some,
                  piece.guide());
          if constexpr (BACKWARD) {
            pack_rgb<T>(task.grad, at(task.grad), some, grad);
            grid_backward_piece(task, stripes, gap, shares, piece, some, sums);
            if (task.grad_guide.data)
              unpack<T>(piece.grad_guide(), task.grad_guide.dtype, task.grad_guide.data, at(task.grad_guide),
                        task.grad_guide.strides[3], some, false);
          } else {
            grid_forward_piece(task, stripes, gap, shares, piece, some);
          }
          if (task.out.data) unpack_rgb<T>(out, task.out, at(task.out), some, false);
        }
        if (parts) sums.take(parts + gap * 4 * column, lumas, row_share);
      }
    }
  }
}

GridCurveLoop gridcurve_loop(bool wide, bool backward) {
  if (wide) return backward ? run_gridcurve<double, true> : run_gridcurve<double, false>;
  return backward ? run_gridcurve<float, true> : run_gridcurve<float, false>;
}
