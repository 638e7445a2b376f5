#include "bind.h"

namespace py = pybind11;
using namespace fastllie;

// Nothing is shared that has no lock of its own: a Python without the GIL may keep it off.
PYBIND11_MODULE(_cuda, m, pybind11::mod_gil_not_used()) {
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
  m.def("illumination_forward", [](const Handle& x, const Handle& illum, const Handle& out, Sizes sizes,
                                   int device, uintptr_t stream) {
    illumination_forward_cuda(view(x), view(illum), view(out), sizes, device,
                              reinterpret_cast<void*>(stream));
  });
  m.def("illumination_backward", [](const Handle& grad, const Handle& x, const Handle& illum,
                                    const Handle& grad_x, const Handle& grad_illum, Sizes sizes,
                                    std::array<bool, 2> needs, int device, uintptr_t stream) {
    illumination_backward_cuda(view(grad), view(x), view(illum), view_if(needs[0], grad_x),
                               view_if(needs[1], grad_illum), sizes, device, reinterpret_cast<void*>(stream));
  });
  m.def("illuminate_forward", [](const Handle& raw, const Handle& v, const Handle& y, const Handle& illum,
                                 const Handle& out, Sizes sizes, int device, uintptr_t stream) {
    illuminate_forward_cuda(view(raw), view(v), view(y), view(illum), view(out), sizes, device,
                            reinterpret_cast<void*>(stream));
  });
  m.def("illuminate_backward",
        [](const Handle& grad_illum, const Handle& grad_out, const Handle& raw, const Handle& v,
           const Handle& y, const Handle& grad_raw, const Handle& grad_v, const Handle& grad_y, Sizes sizes,
           std::array<bool, 3> needs, int device, uintptr_t stream) {
          illuminate_backward_cuda(view(grad_illum), view(grad_out), view(raw), view(v), view(y),
                                   view_if(needs[0], grad_raw), view_if(needs[1], grad_v),
                                   view_if(needs[2], grad_y), sizes, device, reinterpret_cast<void*>(stream));
        });
  using Pair = std::array<int64_t, 2>;
  using Cells = std::array<int64_t, 3>;
  m.def("gridcurve_parts", [](Sizes sizes, Cells cells, Pair place, Pair whole) {
    return gridcurve_parts_cuda({sizes, cells, place, whole, 0});
  });
  m.def("gridcurve_forward", [](View x, View grid, View guide, View out, Sizes sizes, Cells cells, Pair place,
                                Pair whole, int64_t steps, int device, uintptr_t stream) {
    gridcurve_forward_cuda(x, grid.data, guide, out, {sizes, cells, place, whole, steps}, device,
                           reinterpret_cast<void*>(stream));
  });
  m.def("gridcurve_backward", [](View grad, View x, View grid, View guide, const Handle& grad_x,
                                 const Handle& grad_guide, const Handle& parts, Sizes sizes, Cells cells,
                                 Pair place, Pair whole, int64_t steps, std::array<bool, 3> needs, int device,
                                 uintptr_t stream) {
    gridcurve_backward_cuda(grad, x, grid.data, guide, view_if(needs[0], grad_x),
                            view_if(needs[2], grad_guide),
                            static_cast<double*>(view_if(needs[1], parts).data),
                            {sizes, cells, place, whole, steps}, device, reinterpret_cast<void*>(stream));
  });
  m.def("sci_forward", [](const Handle& x, const Handle& weights, const Handle& biases, const Handle& out,
                          Sizes sizes, bool residual, bool reflect, int device, uintptr_t stream) {
    sci_forward_cuda(view(x), view(weights), view(biases), view(out), {sizes, residual, reflect}, device,
                     reinterpret_cast<void*>(stream));
  });
  m.def("zerodce_forward",
        [](const Handle& x, const Handle& out, Sizes sizes, int64_t around, bool zeros, uintptr_t matrices,
           uintptr_t biases, std::array<uintptr_t, 6> features, int device, uintptr_t stream) {
          ZeroDceMatrices network{view(x),
                                  view(out),
                                  {},
                                  around,
                                  zeros,
                                  reinterpret_cast<const void*>(matrices),
                                  reinterpret_cast<const float*>(biases),
                                  {}};
          for (int i = 0; i < 4; ++i) network.sizes[i] = sizes[i];
          for (int i = 0; i < 6; ++i) network.features[i] = reinterpret_cast<void*>(features[i]);
          zerodce_forward_cuda(network, device, reinterpret_cast<void*>(stream));
        });
  m.def("smoothness_blocks", smoothness_blocks_cuda);
  m.def("smoothness_forward", [](const Handle& illum, const Handle& guide, const Handle& parts, Sizes sizes,
                                 int color, bool scalar, double kappa, int device, uintptr_t stream) {
    const Smoothness settings{sizes, static_cast<Color>(color), scalar, kappa};
    smoothness_forward_cuda(view(illum), view(guide), static_cast<double*>(view(parts).data), settings,
                            device, reinterpret_cast<void*>(stream));
  });
  m.def("smoothness_backward",
        [](const Handle& illum, const Handle& guide, const Handle& grad_illum, const Handle& grad_guide,
           const Handle& grad, const Handle& means, Sizes sizes, int color, bool scalar, double kappa,
           std::array<bool, 2> needs, int device, uintptr_t stream) {
          const Smoothness settings{sizes, static_cast<Color>(color), scalar, kappa};
          smoothness_backward_cuda(view(illum), view(guide), view_if(needs[0], grad_illum),
                                   view_if(needs[1], grad_guide), static_cast<const double*>(view(grad).data),
                                   static_cast<const double*>(view(means).data), settings, device,
                                   reinterpret_cast<void*>(stream));
        });
  m.def("smoothness_colours", [](const Handle& grad_colours, const Handle& grad_guide, int64_t triples,
                                 int device, uintptr_t stream) {
    smoothness_colours_cuda(view(grad_colours), view(grad_guide), triples, device,
                            reinterpret_cast<void*>(stream));
  });
  m.def("zero_reference_doubles", zero_reference_doubles_cuda);
  m.def("zero_reference_losses", [](View x, View alpha, View losses, View cells, View patches, View means,
                                    View workspace, Sizes sizes, bool shared, int64_t steps, bool tanh,
                                    double level, int device, uintptr_t stream) {
    zero_reference_losses_cuda(x, alpha,
                               {losses.data, cells.data, patches.data, static_cast<double*>(means.data)},
                               static_cast<double*>(workspace.data), {sizes, shared, steps, tanh}, level,
                               device, reinterpret_cast<void*>(stream));
  });
  m.def("zero_reference_slopes", [](View x, View alpha, View cells, View patches, View means, View grad,
                                    const Handle& grad_x, const Handle& grad_alpha, Sizes sizes, bool shared,
                                    int64_t steps, bool tanh, double level, std::array<bool, 2> needs,
                                    int device, uintptr_t stream) {
    zero_reference_slopes_cuda(x, alpha,
                               {nullptr, cells.data, patches.data, static_cast<double*>(means.data)}, grad,
                               view_if(needs[0], grad_x), view_if(needs[1], grad_alpha),
                               {sizes, shared, steps, tanh}, level, device, reinterpret_cast<void*>(stream));
  });
}
