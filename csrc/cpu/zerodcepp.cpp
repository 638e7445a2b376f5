#include <algorithm>

#include "cpu/parallel.h"
#include "cpu/zerodcepp_task.h"

namespace fastllie {
namespace {

// Most columns of a strip: with the twelve of the first layer's halo they make twelve blocks of pixels, and
// the rows that are kept take half of the second cache
constexpr int64_t STRIP_COLUMNS = 132;
// Rows of a band, each of which recomputes the rows of its halo; no fewer where threads share a small image
constexpr int64_t BAND_ROWS_MOST = 192, BAND_ROWS_LEAST = 8;

}  // namespace

void zerodcepp_forward_cpu(const ZeroDcePP& network, int threads) {
  const auto& [batch, channels, height, width] = network.sizes;
  ZeroDcePPTask task{network, parts(height, network.scale), parts(width, network.scale), 0, 0, 0, 0, 0,
                     false};
  task.strips = parts(task.width, STRIP_COLUMNS);
  task.strip_columns = parts(task.width, task.strips);
  const int64_t shares = parts(threads, batch * task.strips);
  task.band_rows = std::clamp(parts(task.height, shares), BAND_ROWS_LEAST, BAND_ROWS_MOST);
  task.bands = parts(task.height, task.band_rows);
  task.band_rows = parts(task.height, task.bands);
  task.bands = parts(task.height, task.band_rows);
  task.map_pitch = parts(task.width, 16) * 16;
  const ZeroDcePPLoops run = FASTLLIE_CHOOSE(zerodcepp_loops)();
  expect_whole_pages(network.out, batch * channels * height * width);
  parallel(task.units(), threads, [&](int64_t from, int64_t to) { run.network(task, from, to); });
  if (network.scale == 1) return;
  const int64_t elements = batch * channels * height * width;
  // interleaved channels fill whole lines together
  View lines = network.out;
  if (lines.strides[1] == 1 && lines.strides[3] == 3) lines.strides[1] = 0;
  task.stream = (unit(network.out) || lines.strides[1] == 0) && can_stream(lines, elements);
  parallel(batch * height, worthwhile(threads, elements),
           [&](int64_t from, int64_t to) { run.brighten(task, from, to); });
}

}  // namespace fastllie
