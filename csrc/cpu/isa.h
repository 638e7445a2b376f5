// Which instruction set the kernels use: the widest that this machine has, or a narrower one for tests. Their
// loops are compiled for each, by isa_*.cpp in a namespace of its own.
#pragma once
#include <string>
#include <vector>

#if defined(__x86_64__) && (defined(__clang__) || __GNUC__ >= 11)
#define FASTLLIE_KNOWS_TILES  // the compiler
#endif

namespace fastllie {

// avx512_bf16: and products of pairs of bfloat16; amx: and of tiles of them
enum class Isa { baseline, avx2, avx512, avx512_bf16, amx };

std::vector<std::string> isa_names();   // those that this machine can run, narrowest first
std::string isa_name();                 // the one in use
void set_isa(const std::string& name);  // throws std::invalid_argument for any other name
Isa isa();
bool has_bf16();
bool has_tiles();

}  // namespace fastllie

// FASTLLIE_DECLARE declares a function for each instruction set, FASTLLIE_CHOOSE is the one for the set in
// use; those with BF16 are for the functions that are compiled with products of bfloat16 too, and those with
// TILES for products of tiles of them, where these are wanted.
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

#if defined(FASTLLIE_KNOWS_TILES)
#define FASTLLIE_DECLARE_TILES(...) \
  FASTLLIE_DECLARE(__VA_ARGS__)     \
  namespace amx {                   \
  __VA_ARGS__;                      \
  }
#define FASTLLIE_CHOOSE_TILES(function, wanted) (wanted ? amx::function : FASTLLIE_CHOOSE(function))
#else
#define FASTLLIE_DECLARE_TILES(...) FASTLLIE_DECLARE(__VA_ARGS__)
#define FASTLLIE_CHOOSE_TILES(function, wanted) FASTLLIE_CHOOSE(function)
#endif
