#include "cpu/parallel.h"
#include "cpu/zerodce_task.h"

namespace fastllie {
namespace {

// Most columns of a strip: with the ten of the second layer's halo they make 36 tiles, three whole products
constexpr int64_t STRIP_COLUMNS = 134;
// Of tiles: with the twelve of the first layer's halo sixteen whole ones
constexpr int64_t TILED_COLUMNS = 244;
// Rows of a band, each of which recomputes the rows of its halo
constexpr int64_t BAND_ROWS = 192;

ZeroDceLoop loop_of(Arithmetic arithmetic) {
#if defined(FASTLLIE_KNOWS_TILES)
  if (arithmetic == Arithmetic::tiles) return amx::zerodce_tiles_loop();
#endif
  return FASTLLIE_CHOOSE_BF16(zerodce_loop)(arithmetic == Arithmetic::winograd4_pairs);
}

}  // namespace

void zerodce_forward_cpu(const ZeroDce& network, int threads) {
  const auto& [batch, channels, height, width] = network.sizes;
  const int64_t most = network.arithmetic == Arithmetic::tiles ? TILED_COLUMNS : STRIP_COLUMNS;
  ZeroDceTask task{network, parts(width, most), 0, parts(height, BAND_ROWS), 0};
  task.strip_columns = parts(width, task.strips);
  task.band_rows = parts(parts(height, task.bands), 4) * 4;
  task.strips = parts(width, task.strip_columns);
  task.bands = parts(height, task.band_rows);
  const ZeroDceLoop loop = loop_of(network.arithmetic);
  parallel(task.units(), threads, [&](int64_t from, int64_t to) { loop(task, from, to); });
}

}  // namespace fastllie
