// The loops of illumination division. Included once for each instruction set, inside that set's namespace,
// after simd.h.

// 1 / (1 + e^-z) keeps its relative precision where it is small and an illumination depends on it.
template <class V>
FASTLLIE_INLINE V sigmoid_of(V z, V one) {
  return one / (one + exp_of(-z, one));
}

struct DivideForward {
  static constexpr int INPUTS = 2, OUTPUTS = 1;
  template <class V>
  FASTLLIE_INLINE void apply(const V* in, V* out, V one) {
    out[0] = divide(in[0], in[1], one);
  }
};

struct DivideBackward {
  static constexpr int INPUTS = 3, OUTPUTS = 2;
  template <class V>
  FASTLLIE_INLINE void apply(const V* in, V* out, V one) {
    divide_backward(in[0], in[1], in[2], one, out[0], out[1]);
  }
};

struct IlluminateForward {
  static constexpr int INPUTS = 3, OUTPUTS = 2;
  template <class V>
  FASTLLIE_INLINE void apply(const V* in, V* out, V one) {
    out[0] = illuminate(sigmoid_of(in[0], one), in[1], one);
    out[1] = divide(in[2], out[0], one);
  }
};

struct IlluminateBackward {
  static constexpr int INPUTS = 5, OUTPUTS = 3;
  template <class V>
  FASTLLIE_INLINE void apply(const V* in, V* out, V one) {
    illuminate_backward(in[0], in[1], sigmoid_of(in[2], one), in[3], in[4], one, out[0], out[1], out[2]);
  }
};

// Contiguous pixels in the arithmetic's type: `pixels` of them, to whole vectors.
template <class T, class F>
FASTLLIE_INLINE void illumination_row(T* const* rows, const bool* stream, int64_t pixels) {
  const Vector<T> one = broadcast<Vector<T>>(1);
  for (int64_t at = 0; at < pixels; at += LANES<T>) {
    Vector<T> in[F::INPUTS], out[F::OUTPUTS];
    for (int i = 0; i < F::INPUTS; ++i) in[i] = load<Vector<T>>(rows[i] + at);
    F::apply(in, out, one);
    for (int i = 0; i < F::OUTPUTS; ++i) {
      if (rows[F::INPUTS + i]) store(rows[F::INPUTS + i] + at, out[i], stream[F::INPUTS + i]);
    }
  }
}

template <class T, class F>
static void run_illumination(const IlluminationTask& task, int64_t from, int64_t to) {
  constexpr int COUNT = F::INPUTS + F::OUTPUTS;
  constexpr bool NOT_STREAMED[COUNT] = {};
  std::vector<T> scratch(COUNT * PACKED_PIXELS);
  for (int64_t unit = from; unit < to; ++unit) {
    const Place place(unit, task.contiguous, task.sizes);
    for (int64_t c = place.first; c < place.last; ++c) {
      int64_t at = 0;
      T* rows[COUNT];
      if (task.direct) {
        at = place.pixels / LANES<T> * LANES<T>;
        for (int i = 0; i < COUNT; ++i) {
          const View& v = task.views[i];
          rows[i] = v.data ? static_cast<T*>(v.data) + place.offset(v, c, 0) : nullptr;
        }
        illumination_row<T, F>(rows, task.stream.data(), at);
      }
      for (; at < place.pixels; at += PACKED_PIXELS) {
        const int64_t some = place.pixels - at < PACKED_PIXELS ? place.pixels - at : PACKED_PIXELS;
        for (int i = 0; i < COUNT; ++i) {
          const View& v = task.views[i];
          rows[i] = v.data ? scratch.data() + i * PACKED_PIXELS : nullptr;
          if (i < F::INPUTS) pack(v.dtype, v.data, place.offset(v, c, at), v.strides[3], some, rows[i]);
        }
        illumination_row<T, F>(rows, NOT_STREAMED, some);
        for (int i = F::INPUTS; i < COUNT; ++i) {
          const View& v = task.views[i];
          if (rows[i])
            unpack(rows[i], v.dtype, v.data, place.offset(v, c, at), v.strides[3], some, task.stream[i]);
        }
      }
    }
  }
  finish_streams();
}

template <class T>
static IlluminationLoop pick_illumination(Illumination op) {
  switch (op) {
    case Illumination::illumination_forward:
      return run_illumination<T, DivideForward>;
    case Illumination::illumination_backward:
      return run_illumination<T, DivideBackward>;
    case Illumination::illuminate_forward:
      return run_illumination<T, IlluminateForward>;
    default:
      return run_illumination<T, IlluminateBackward>;
  }
}

IlluminationLoop illumination_loop(Illumination op, bool wide) {
  return wide ? pick_illumination<double>(op) : pick_illumination<float>(op);
}
