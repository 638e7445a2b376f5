// Between the entry points of elementwise operators and their loops, which are compiled for each instruction
// set.
#pragma once
#include "cpu/views.h"

namespace fastllie {

constexpr int MAP_VIEWS = 8;

// The work of one call on tensors of one shape and dtype: inputs first, then outputs; a null output is not
// wanted.
struct MapTask {
  std::array<View, MAP_VIEWS> views;
  int count;
  Sizes sizes;
  bool contiguous;  // every tensor's pixels of a row lie side by side
  bool direct;      // and they are stored in the type of the arithmetic
  std::array<bool, MAP_VIEWS> stream;
};

// Does units `from` to `to` of the task.
using MapLoop = void (*)(const MapTask& task, int64_t from, int64_t to);

enum class Map { divide_forward, divide_backward, illuminate_forward, illuminate_backward };

namespace baseline {
MapLoop map_loop(Map map, bool wide);
}
#if defined(__x86_64__)
namespace avx2 {
MapLoop map_loop(Map map, bool wide);
}
namespace avx512 {
MapLoop map_loop(Map map, bool wide);
}
#endif

}  // namespace fastllie
