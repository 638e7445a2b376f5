#include "bind.h"
#include "cpu/isa.h"

namespace py = pybind11;
using namespace fastllie;

PYBIND11_MODULE(_cpu, m) {
  m.doc() = "fastllie's CPU kernels. They trust their pointers: only fastllie.ops calls them.";
  m.def("isa", isa_name, "The instruction set in use.");
  m.def("isas", isa_names, "The instruction sets that this machine can run, narrowest first.");
  m.def("set_isa", set_isa, "Use another instruction set; for tests.");
  m.def("curve_forward",
        [](const Handle& x, const Handle& alpha, const Handle& out, std::array<int64_t, 4> sizes, bool shared,
           int64_t steps, bool tanh, int threads) {
          const View xv = view(x), av = view(alpha), ov = view(out);
          py::gil_scoped_release release;
          curve_forward_cpu(xv, av, ov, {sizes, shared, steps, tanh}, threads);
        });
  m.def("curve_backward", [](const Handle& grad, const Handle& x, const Handle& alpha, const Handle& grad_x,
                             const Handle& grad_alpha, std::array<int64_t, 4> sizes, bool shared,
                             int64_t steps, bool tanh, bool need_x, bool need_alpha, int threads) {
    const View gv = view(grad), xv = view(x), av = view(alpha);
    const View gx = view_if(need_x, grad_x), ga = view_if(need_alpha, grad_alpha);
    py::gil_scoped_release release;
    curve_backward_cpu(gv, xv, av, gx, ga, {sizes, shared, steps, tanh}, threads);
  });
}
