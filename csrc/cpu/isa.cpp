#include "cpu/isa.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__) && defined(__x86_64__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <atomic>
#include <stdexcept>

namespace fastllie {
namespace {

const char* const NAMES[] = {"baseline", "avx2", "avx512", "avx512_bf16", "amx"};

#if defined(__x86_64__)
bool bit(unsigned word, int place) { return word >> place & 1; }

// Which vectors the system keeps when it changes threads: 2 the halves of AVX, 5 to 7 what AVX-512 adds.
unsigned kept() {
  unsigned low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

// Whether the system keeps tiles: Linux does where a process has asked for it.
bool keeps_tiles() {
#if defined(__linux__) && defined(SYS_arch_prctl) && defined(FASTLLIE_KNOWS_TILES)
  constexpr int ARCH_REQ_XCOMP_PERM = 0x1023, TILES = 18;
  return (kept() >> 17 & 3) == 3 && syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILES) == 0;
#else
  return false;
#endif
}

// By cpuid itself: __builtin_cpu_supports has other names in each compiler (clang 14 knows no "f16c"), and
// needs a library that Windows does not link.
int widest() {
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
  const bool fma = bit(c, 12), osxsave = bit(c, 27), avx = bit(c, 28), f16c = bit(c, 29);
  if (!osxsave || !avx || !fma || !f16c || (kept() & 6) != 6) return 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !bit(b, 5)) return 0;
  const bool foundation = bit(b, 16), dq = bit(b, 17), bw = bit(b, 30), vl = bit(b, 31);
#if defined(__APPLE__)
  const bool saved = true;  // macOS keeps them from the first use on, and does not show it before
#else
  const bool saved = (kept() & 0xe0) == 0xe0;
#endif
  if (!foundation || !dq || !bw || !vl || !saved) return 1;
  const bool tiles = bit(d, 22) && bit(d, 24);
  if (!__get_cpuid_count(7, 1, &a, &b, &c, &d) || !bit(a, 5)) return 2;
  return tiles && keeps_tiles() ? 4 : 3;
}
#else
int widest() { return 0; }
#endif

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

bool has_bf16() { return isa() >= Isa::avx512_bf16; }

bool has_tiles() { return isa() == Isa::amx; }

}  // namespace fastllie
