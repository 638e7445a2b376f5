#include "bind.h"

namespace py = pybind11;
using namespace fastllie;

PYBIND11_MODULE(_cuda, m) {
  m.doc() = "fastllie's CUDA kernels. They trust their pointers: only fastllie.ops calls them.";
  m.def("curve_forward",
        [](const Handle& x, const Handle& alpha, const Handle& out, std::array<int64_t, 4> sizes, bool shared,
           int64_t steps, bool tanh, int device, uintptr_t stream) {
          const Curve curve{sizes, shared, steps, tanh};
          curve_forward_cuda(view(x), view(alpha), view(out), curve, device, reinterpret_cast<void*>(stream));
        });
  m.def(
      "curve_backward", [](const Handle& grad, const Handle& x, const Handle& alpha, const Handle& grad_x,
                           const Handle& grad_alpha, std::array<int64_t, 4> sizes, bool shared, int64_t steps,
                           bool tanh, bool need_x, bool need_alpha, int device, uintptr_t stream) {
        const Curve curve{sizes, shared, steps, tanh};
        curve_backward_cuda(view(grad), view(x), view(alpha), view_if(need_x, grad_x),
                            view_if(need_alpha, grad_alpha), curve, device, reinterpret_cast<void*>(stream));
      });
}
