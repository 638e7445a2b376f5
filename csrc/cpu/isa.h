// Which instruction set the kernels use: the widest that this machine has, or a narrower one for tests. Their
// loops are compiled for each, by isa_*.cpp in a namespace of its own.
#pragma once
#include <string>
#include <vector>

namespace fastllie {

enum class Isa { baseline, avx2, avx512, avx512_bf16 };  // the last: and products of pairs of bfloat16

std::vector<std::string> isa_names();   // those that this machine can run, narrowest first
std::string isa_name();                 // the one in use
void set_isa(const std::string& name);  // throws std::invalid_argument for any other name
Isa isa();
bool has_bf16();

}  // namespace fastllie

// FASTLLIE_DECLARE declares a function for each instruction set, FASTLLIE_CHOOSE is the one for the set in
// use; those with BF16 are for the functions that are compiled with products of bfloat16 too.
#if defined(__x86_64__)
#define FASTLLIE_DECLARE(...) \
  namespace baseline {        \
  __VA_ARGS__;                \
  }                           \
  namespace avx2 {            \
  __VA_ARGS__;                \
  }                           \
  namespace avx512 {          \
  __VA_ARGS__;                \
  }
#define FASTLLIE_DECLARE_BF16(...) \
  FASTLLIE_DECLARE(__VA_ARGS__)    \
  namespace avx512_bf16 {          \
  __VA_ARGS__;                     \
  }
#define FASTLLIE_CHOOSE(function) \
  (isa() >= Isa::avx512 ? avx512::function : isa() == Isa::avx2 ? avx2::function : baseline::function)
#define FASTLLIE_CHOOSE_BF16(function) (has_bf16() ? avx512_bf16::function : FASTLLIE_CHOOSE(function))
#else
#define FASTLLIE_DECLARE(...) \
  namespace baseline {        \
  __VA_ARGS__;                \
  }
#define FASTLLIE_DECLARE_BF16(...) FASTLLIE_DECLARE(__VA_ARGS__)
#define FASTLLIE_CHOOSE(function) (baseline::function)
#define FASTLLIE_CHOOSE_BF16(function) FASTLLIE_CHOOSE(function)
#endif
