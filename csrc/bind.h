// What the two bind.cpp share: how Python hands over a tensor. A function that takes a View is called with a
// Handle.
#pragma once
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <tuple>

#include "fastllie.h"

namespace fastllie {

using Handle = std::tuple<uintptr_t, std::string, std::vector<int64_t>>;  // pointer, dtype, strides

inline View view(const Handle& handle) {
  const auto& [pointer, name, strides] = handle;
  View v{reinterpret_cast<void*>(pointer), Dtype::f32, {}};
  if (name == "float64")
    v.dtype = Dtype::f64;
  else if (name == "float32")
    v.dtype = Dtype::f32;
  else if (name == "bfloat16")
    v.dtype = Dtype::bf16;
  else if (name == "float16")
    v.dtype = Dtype::f16;
  else if (name == "uint8")
    v.dtype = Dtype::u8;
  else
    throw pybind11::type_error("no kernel reads " + name);
  for (size_t i = 0; i < strides.size() && i < 4; ++i) v.strides[i] = strides[i];
  return v;
}

inline View view_if(bool needed, const Handle& handle) {
  View v = view(handle);
  if (!needed) v.data = nullptr;
  return v;
}

}  // namespace fastllie

template <>
struct pybind11::detail::type_caster<fastllie::View> {
  PYBIND11_TYPE_CASTER(fastllie::View, make_caster<fastllie::Handle>::name);

  bool load(handle source, bool convert) {
    make_caster<fastllie::Handle> parts;
    if (!parts.load(source, convert)) return false;
    value = fastllie::view(cast_op<fastllie::Handle>(std::move(parts)));
    return true;
  }
};
