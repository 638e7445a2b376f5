#include "cpu/isa.h"

#include <atomic>
#include <stdexcept>

namespace fastllie {
namespace {

const char* const NAMES[] = {"baseline", "avx2", "avx512", "avx512_bf16"};

int widest() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  if (!avx2) return 0;
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (!avx512) return 1;
  return __builtin_cpu_supports("avx512bf16") ? 3 : 2;
#else
  return 0;
#endif
}

std::atomic<int>& chosen() {
  static std::atomic<int> value{widest()};
  return value;
}

}  // namespace

std::vector<std::string> isa_names() { return {NAMES, NAMES + widest() + 1}; }

std::string isa_name() { return NAMES[chosen()]; }

void set_isa(const std::string& name) {
  for (int i = 0; i <= widest(); ++i) {
    if (name == NAMES[i]) {
      chosen() = i;
      return;
    }
  }
  throw std::invalid_argument("this machine cannot run the instruction set '" + name + "'");
}

Isa isa() { return static_cast<Isa>(chosen().load()); }

bool has_bf16() { return isa() == Isa::avx512_bf16; }

}  // namespace fastllie
