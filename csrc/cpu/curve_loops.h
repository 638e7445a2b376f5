// The loops of the curve. Included once for each instruction set, inside that set's namespace, after simd.h.

// Contiguous pixels of one channel of one image, in the arithmetic's type; a step's map lies `map_step` after
// the one before it.
template <class T>
struct Row {
  const T* grad;
  const T* x;
  const T* alpha;
  T* out;         // the image in the forward, its gradient (or null) in the backward
  T* grad_alpha;  // or null
  int64_t map_step, grad_map_step, steps;
  bool stream_out, stream_grad_alpha;
};

// The arithmetic of tanh keeps the loads of eight maps apart, and the machine's own prefetcher loses them:
// one KiB ahead, the forward at 1920x1080 takes 4.1 ms instead of 4.6 (AVX-512 on an EPYC, 2 threads).
// Without tanh the loads follow each other, and 3.1 ms become 3.9.
constexpr int64_t PREFETCH_BYTES = 1024;

template <class T, bool TANH>
FASTLLIE_INLINE Vector<T> read_map(const Row<T>& row, int64_t step, int64_t at, Vector<T> one) {
  const T* from = row.alpha + step * row.map_step + at;
  if constexpr (TANH) __builtin_prefetch(from + PREFETCH_BYTES / sizeof(T));
  const auto a = load<Vector<T>>(from);
  if constexpr (TANH) return tanh_of(a, one);
  return a;
}

template <class T, bool SHARED, bool TANH>
FASTLLIE_INLINE void forward_at(const Row<T>& row, int64_t at) {
  const Vector<T> one = broadcast<Vector<T>>(1);
  auto x = load<Vector<T>>(row.x + at);
  if constexpr (SHARED) {
    const auto a = read_map<T, TANH>(row, 0, at, one);
    for (int64_t k = 0; k < row.steps; ++k) x = curve_step(x, a);
  } else if (row.steps == CHUNK) {
    // every load before the first step: the steps wait for each other, the loads need not
    Vector<T> a[CHUNK];
    for (int k = 0; k < CHUNK; ++k) a[k] = read_map<T, TANH>(row, k, at, one);
    for (int k = 0; k < CHUNK; ++k) x = curve_step(x, a[k]);
  } else {
    for (int64_t k = 0; k < row.steps; ++k) x = curve_step(x, read_map<T, TANH>(row, k, at, one));
  }
  store(row.out + at, x, row.stream_out);
}

// `count` steps from `first` on, backwards: their states are recomputed from x into registers, then left
// again.
template <class T, bool SHARED, bool TANH>
FASTLLIE_INLINE void backward_chunk(const Row<T>& row, int64_t at, int64_t first, int count, Vector<T> x,
                                    Vector<T> shared, Vector<T>& grad, Vector<T>& grad_shared) {
  const Vector<T> one = broadcast<Vector<T>>(1);
  Vector<T> state[CHUNK], a[CHUNK];
  for (int k = 0; k < count; ++k) {
    a[k] = SHARED ? shared : read_map<T, TANH>(row, first + k, at, one);
    state[k] = x;
    x = curve_step(x, a[k]);
  }
  for (int k = count - 1; k >= 0; --k) {
    Vector<T> grad_a = curve_step_backward(state[k], a[k], one, grad);
    if constexpr (SHARED) {
      grad_shared += grad_a;
    } else if (row.grad_alpha) {
      if constexpr (TANH) grad_a *= one - a[k] * a[k];
      store(row.grad_alpha + (first + k) * row.grad_map_step + at, grad_a, row.stream_grad_alpha);
    }
  }
}

template <class T, bool SHARED, bool TANH>
FASTLLIE_INLINE void backward_at(const Row<T>& row, int64_t at) {
  const Vector<T> one = broadcast<Vector<T>>(1);
  const auto x = load<Vector<T>>(row.x + at);
  auto grad = load<Vector<T>>(row.grad + at);
  Vector<T> grad_shared = {}, shared = {};
  if constexpr (SHARED) shared = read_map<T, TANH>(row, 0, at, one);
  if (row.steps == CHUNK) {
    backward_chunk<T, SHARED, TANH>(row, at, 0, CHUNK, x, shared, grad, grad_shared);
  } else {
    // more steps than a chunk: the state before each chunk is recomputed from the image, at no memory
    for (int64_t first = (row.steps - 1) / CHUNK * CHUNK; first >= 0; first -= CHUNK) {
      auto state = x;
      for (int64_t k = 0; k < first; ++k) {
        state = curve_step(state, SHARED ? shared : read_map<T, TANH>(row, k, at, one));
      }
      const int count = row.steps - first < CHUNK ? int(row.steps - first) : CHUNK;
      backward_chunk<T, SHARED, TANH>(row, at, first, count, state, shared, grad, grad_shared);
    }
  }
  if (row.out) store(row.out + at, grad, row.stream_out);
  if constexpr (SHARED) {
    if (!row.grad_alpha) return;
    if constexpr (TANH) grad_shared *= one - shared * shared;
    store(row.grad_alpha + at, grad_shared, row.stream_grad_alpha);
  }
}

template <class T, bool SHARED, bool TANH, bool BACKWARD>
static void run_row(const Row<T>& row, int64_t pixels) {
  for (int64_t at = 0; at < pixels; at += LANES<T>) {
    if constexpr (BACKWARD) {
      backward_at<T, SHARED, TANH>(row, at);
    } else {
      forward_at<T, SHARED, TANH>(row, at);
    }
  }
}

// A row's pixels in the arithmetic's type and side by side: for other types, other strides, and the last few.
template <class T>
struct Scratch {
  std::vector<T> grad, x, alpha, out, grad_alpha;

  Scratch(int64_t maps)
      : grad(PACKED_PIXELS),
        x(PACKED_PIXELS),
        alpha(maps * PACKED_PIXELS),
        out(PACKED_PIXELS),
        grad_alpha(maps * PACKED_PIXELS) {}
};

template <class T, bool SHARED, bool TANH, bool BACKWARD>
static void run_packed(const CurveTask& task, const std::array<int64_t, 5>& offsets, int64_t pixels,
                       Scratch<T>& scratch) {
  const auto [grad, x, alpha, out, grad_alpha] = offsets;
  const int64_t maps = SHARED ? 1 : task.steps, channels = task.sizes[1];
  if (BACKWARD)
    pack(task.grad.dtype, task.grad.data, grad, task.grad.strides[3], pixels, scratch.grad.data());
  pack(task.x.dtype, task.x.data, x, task.x.strides[3], pixels, scratch.x.data());
  for (int64_t k = 0; k < maps; ++k) {
    pack(task.alpha.dtype, task.alpha.data, alpha + k * channels * task.alpha.strides[1],
         task.alpha.strides[3], pixels, scratch.alpha.data() + k * PACKED_PIXELS);
  }
  const Row<T> row{scratch.grad.data(),
                   scratch.x.data(),
                   scratch.alpha.data(),
                   task.out.data ? scratch.out.data() : nullptr,
                   task.grad_alpha.data ? scratch.grad_alpha.data() : nullptr,
                   PACKED_PIXELS,
                   PACKED_PIXELS,
                   task.steps,
                   false,
                   false};
  run_row<T, SHARED, TANH, BACKWARD>(row, pixels);
  if (row.out)
    unpack(row.out, task.out.dtype, task.out.data, out, task.out.strides[3], pixels, task.stream_out);
  if (!BACKWARD || !row.grad_alpha) return;
  for (int64_t k = 0; k < maps; ++k) {
    unpack(row.grad_alpha + k * PACKED_PIXELS, task.grad_alpha.dtype, task.grad_alpha.data,
           grad_alpha + k * channels * task.grad_alpha.strides[1], task.grad_alpha.strides[3], pixels,
           task.stream_grad_alpha);
  }
}

template <class T, bool SHARED, bool TANH, bool BACKWARD>
static void run(const CurveTask& task, int64_t from, int64_t to) {
  const int64_t channels = task.sizes[1];
  Scratch<T> scratch(SHARED ? 1 : task.steps);
  for (int64_t unit = from; unit < to; ++unit) {
    const Place place(unit, task.contiguous, task.sizes);
    for (int64_t c = place.first; c < place.last; ++c) {
      const auto start = [&](const View& v) {
        return v.data ? static_cast<T*>(v.data) + place.offset(v, c, 0) : nullptr;
      };
      int64_t at = 0;
      if (task.direct) {
        at = place.pixels / LANES<T> * LANES<T>;
        const Row<T> row{start(task.grad),
                         start(task.x),
                         start(task.alpha),
                         start(task.out),
                         start(task.grad_alpha),
                         task.alpha.strides[1] * channels,
                         task.grad_alpha.strides[1] * channels,
                         task.steps,
                         task.stream_out,
                         task.stream_grad_alpha};
        run_row<T, SHARED, TANH, BACKWARD>(row, at);
      }
      for (; at < place.pixels; at += PACKED_PIXELS) {
        const std::array<int64_t, 5> offsets{place.offset(task.grad, c, at), place.offset(task.x, c, at),
                                             place.offset(task.alpha, c, at), place.offset(task.out, c, at),
                                             place.offset(task.grad_alpha, c, at)};
        const int64_t some = place.pixels - at < PACKED_PIXELS ? place.pixels - at : PACKED_PIXELS;
        run_packed<T, SHARED, TANH, BACKWARD>(task, offsets, some, scratch);
      }
    }
  }
  finish_streams();
}

template <class T, bool BACKWARD>
static CurveLoop pick(bool shared, bool tanh) {
  if (shared) return tanh ? run<T, true, true, BACKWARD> : run<T, true, false, BACKWARD>;
  return tanh ? run<T, false, true, BACKWARD> : run<T, false, false, BACKWARD>;
}

CurveLoop curve_loop(bool wide, bool shared, bool tanh, bool backward) {
  if (wide) return backward ? pick<double, true>(shared, tanh) : pick<double, false>(shared, tanh);
  return backward ? pick<float, true>(shared, tanh) : pick<float, false>(shared, tanh);
}
