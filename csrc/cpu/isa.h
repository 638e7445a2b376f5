// Which instruction set the kernels use: the widest that this machine has, or a narrower one for tests.
#pragma once
#include <string>
#include <vector>

namespace fastllie {

enum class Isa { baseline, avx2, avx512 };

std::vector<std::string> isa_names();   // those that this machine can run, narrowest first
std::string isa_name();                 // the one in use
void set_isa(const std::string& name);  // throws std::invalid_argument for any other name
Isa isa();
bool has_bf16();  // whether "avx512_bf16" is in use: AVX-512, and products of pairs of bfloat16

}  // namespace fastllie
