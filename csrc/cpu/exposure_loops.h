// The loops of the exposure meter. Included once for each instruction set, inside that set's namespace, after
// pack.h.

static void run_exposure(const Exposure& task, int64_t from, int64_t to) {
  const f32v one = broadcast<f32v>(1.0f), half = broadcast<f32v>(0.5f);
  alignas(64) float planes[3][PACKED_PIXELS];
  float* const rows[3] = {planes[0], planes[1], planes[2]};
  for (int64_t unit = from; unit < to; ++unit) {
    const Place place(unit, false, task.sizes);
    const f32v gain = broadcast<f32v>(task.gains[place.b]), more = gain - one;
    pack_rgb(task.x, place.offset(task.x, 0, 0), place.pixels, rows);
    for (int64_t at = 0; at < place.pixels; at += LANES<float>) {
      f32v v[3];
      for (int c = 0; c < 3; ++c) v[c] = load<f32v>(rows[c] + at);
      const f32v most = Bounds::at_least(Bounds::at_least(v[0], v[1]), v[2]);
      for (int c = 0; c < 3; ++c) {
        const f32v between = task.keep_hue ? (v[c] + most) * half : v[c];
        store(rows[c] + at, gain * v[c] / (one + more * between), false);
      }
    }
    unpack_rgb(rows, task.out, place.offset(task.out, 0, 0), place.pixels, false);
  }
}

ExposureLoop exposure_loop() { return run_exposure; }

static void run_light(const Light& task, int64_t from, int64_t to) {
  const int64_t height = task.sizes[2], width = task.sizes[3];
  const View& x = task.x;
  f32v weights[3];
  for (int c = 0; c < 3; ++c) weights[c] = broadcast<f32v>(task.weights[c]);
  alignas(64) float planes[3][PACKED_PIXELS];
  float* const rows[3] = {planes[0], planes[1], planes[2]};
  for (int64_t row = from; row < to; ++row) {
    double total = 0;
    for (int64_t w = 0; w < width; w += PACKED_PIXELS) {
      const int64_t some = smaller(width - w, PACKED_PIXELS);
      // what fills the last vector up is zero, and adds nothing
      pack_rgb(x, row / height * x.strides[0] + row % height * x.strides[2] + w * x.strides[3], some, rows);
      f32v sums{};
      for (int64_t at = 0; at < some; at += LANES<float>) {
        f32v luma{};
        for (int c = 0; c < 3; ++c) luma += weights[c] * load<f32v>(rows[c] + at);
        sums += luma * luma;
      }
      for (int i = 0; i < LANES<float>; ++i) total += sums[i];
    }
    task.out[row] = total / double(width);
  }
}

LightLoop light_loop() { return run_light; }
