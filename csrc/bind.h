// What the two bind.cpp share: how Python hands over a tensor.
#pragma once
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <string_view>
#include <utility>

#include "fastllie.h"

namespace fastllie {

inline Dtype dtype_of(std::string_view name) {
  constexpr std::pair<std::string_view, Dtype> dtypes[] = {{"float32", Dtype::f32},
                                                           {"float64", Dtype::f64},
                                                           {"bfloat16", Dtype::bf16},
                                                           {"float16", Dtype::f16},
                                                           {"uint8", Dtype::u8}};
  for (const auto& [known, dtype] : dtypes)
    if (name == known) return dtype;
  throw pybind11::type_error("no kernel reads " + std::string(name));
}

inline View view_if(bool needed, View v) {
  if (!needed) v.data = nullptr;
  return v;
}

}  // namespace fastllie

// From a tuple of pointer, dtype and strides. As Python's own functions read it: an operator takes several,
// and what they become on the way would take longer than a small image.
template <>
struct pybind11::detail::type_caster<fastllie::View> {
  PYBIND11_TYPE_CASTER(fastllie::View, const_name("tuple[int, str, tuple[int, ...]]"));

  bool load(handle source, bool) {
    PyObject* const parts = source.ptr();
    if (!PyTuple_Check(parts) || PyTuple_Size(parts) != 3) return false;
    PyObject *const name = PyTuple_GetItem(parts, 1), *const strides = PyTuple_GetItem(parts, 2);
    if (!PyUnicode_Check(name) || !PyTuple_Check(strides)) return false;
    Py_ssize_t length = 0;
    const char* const text = PyUnicode_AsUTF8AndSize(name, &length);
    if (!text) throw error_already_set();
    value = {PyLong_AsVoidPtr(PyTuple_GetItem(parts, 0)),
             fastllie::dtype_of({text, static_cast<size_t>(length)}),
             {}};
    for (Py_ssize_t i = 0; i < PyTuple_Size(strides) && i < 4; ++i)
      value.strides[i] = PyLong_AsLongLong(PyTuple_GetItem(strides, i));
    if (PyErr_Occurred()) throw error_already_set();
    return true;
  }
};
