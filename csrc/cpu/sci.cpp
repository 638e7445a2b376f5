#include <algorithm>

#include "cpu/parallel.h"
#include "cpu/sci_task.h"

namespace fastllie {
namespace {

// Output columns of a strip: its rows stay in the second cache, and with the four columns that a hidden layer
// has more they fill whole blocks of vectors. Narrower ones, whose rows the first cache could hold, took
// longer.
constexpr int64_t STRIP_COLUMNS = 1008;
// Rows of a band: each recomputes six rows of hidden layers, and reads six of the image twice
constexpr int64_t BAND_ROWS_LEAST = 16, BAND_ROWS_MOST = 512;
// Units a thread: one that comes late leaves some to the others
constexpr int64_t UNITS_PER_THREAD = 4;
// A pixel's arithmetic is that of so many elements of an elementwise operator
constexpr int64_t PIXEL_WORTH = 64;

}  // namespace

// Every pixel is computed by the same operations wherever it lies in its unit: the cut, which follows the
// number of threads, does not change a bit.
void sci_forward_cpu(const View& x, const View& weights, const View& biases, const View& out, const Sci& sci,
                     int threads) {
  const auto& [batch, channels, height, width] = sci.sizes;
  const int64_t elements = batch * channels * height * width;
  SciTask task{x, out, weights.data, biases.data, sci.sizes, sci.residual, sci.reflect, 0, 0, 0, 0, false};
  task.strip_columns = std::min(STRIP_COLUMNS, parts(width, 16) * 16);
  task.strips = parts(width, task.strip_columns);
  const int64_t bands = parts(threads * UNITS_PER_THREAD, batch * task.strips);
  task.band_rows = std::clamp(parts(height, bands), BAND_ROWS_LEAST, BAND_ROWS_MOST);
  task.bands = parts(height, task.band_rows);
  // interleaved channels fill whole lines together
  View lines = out;
  if (out.strides[1] == 1 && out.strides[3] == 3) lines.strides[1] = 0;
  task.stream = (unit(out) || lines.strides[1] == 0) && can_stream(lines, elements);
  expect_whole_pages(out, elements);
  const SciLoop loop = FASTLLIE_CHOOSE(sci_loop)(x.dtype == Dtype::f64);
  parallel(task.units(), worthwhile(threads, batch * height * width * PIXEL_WORTH),
           [&](int64_t from, int64_t to) { loop(task, from, to); });
}

}  // namespace fastllie
