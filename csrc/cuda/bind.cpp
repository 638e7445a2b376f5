#include "bind.h"

namespace py = pybind11;
using namespace fastllie;

// Nothing is shared that has no lock of its own: a Python without the GIL may keep it off.
PYBIND11_MODULE(_cuda, m, pybind11::mod_gil_not_used()) {
  m.doc() = "fastllie's CUDA kernels. They trust their pointers: only fastllie.ops calls them.";
  m.def("curve_forward", [](View x, View alpha, View out, std::array<int64_t, 4> sizes, bool shared,
                            int64_t steps, bool tanh, int device, uintptr_t stream) {
    const Curve curve{sizes, shared, steps, tanh};
    curve_forward_cuda(x, alpha, out, curve, device, reinterpret_cast<void*>(stream));
  });
  m.def("curve_backward", [](View grad, View x, View alpha, View grad_x, View grad_alpha,
                             std::array<int64_t, 4> sizes, bool shared, int64_t steps, bool tanh, bool need_x,
                             bool need_alpha, int device, uintptr_t stream) {
    const Curve curve{sizes, shared, steps, tanh};
    curve_backward_cuda(grad, x, alpha, view_if(need_x, grad_x), view_if(need_alpha, grad_alpha), curve,
                        device, reinterpret_cast<void*>(stream));
  });
  m.def("illumination_forward", [](View x, View illum, View out, Sizes sizes, int device, uintptr_t stream) {
    illumination_forward_cuda(x, illum, out, sizes, device, reinterpret_cast<void*>(stream));
  });
  m.def("illumination_backward", [](View grad, View x, View illum, View grad_x, View grad_illum, Sizes sizes,
                                    std::array<bool, 2> needs, int device, uintptr_t stream) {
    illumination_backward_cuda(grad, x, illum, view_if(needs[0], grad_x), view_if(needs[1], grad_illum),
                               sizes, device, reinterpret_cast<void*>(stream));
  });
  m.def("illuminate_forward",
        [](View raw, View v, View y, View illum, View out, Sizes sizes, int device, uintptr_t stream) {
          illuminate_forward_cuda(raw, v, y, illum, out, sizes, device, reinterpret_cast<void*>(stream));
        });
  m.def("illuminate_backward",
        [](View grad_illum, View grad_out, View raw, View v, View y, View grad_raw, View grad_v, View grad_y,
           Sizes sizes, std::array<bool, 3> needs, int device, uintptr_t stream) {
          illuminate_backward_cuda(grad_illum, grad_out, raw, v, y, view_if(needs[0], grad_raw),
                                   view_if(needs[1], grad_v), view_if(needs[2], grad_y), sizes, device,
                                   reinterpret_cast<void*>(stream));
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
  m.def("gridcurve_backward", [](View grad, View x, View grid, View guide, View grad_x, View grad_guide,
                                 View parts, Sizes sizes, Cells cells, Pair place, Pair whole, int64_t steps,
                                 std::array<bool, 3> needs, int device, uintptr_t stream) {
    gridcurve_backward_cuda(grad, x, grid.data, guide, view_if(needs[0], grad_x),
                            view_if(needs[2], grad_guide),
                            static_cast<double*>(view_if(needs[1], parts).data),
                            {sizes, cells, place, whole, steps}, device, reinterpret_cast<void*>(stream));
  });
  m.def("sci_forward", [](View x, View weights, View biases, View out, Sizes sizes, bool residual,
                          bool reflect, int device, uintptr_t stream) {
    sci_forward_cuda(x, weights, biases, out, {sizes, residual, reflect}, device,
                     reinterpret_cast<void*>(stream));
  });
  m.def("zerodce_forward",
        [](View x, View out, Sizes sizes, int64_t around, bool zeros, uintptr_t matrices, uintptr_t biases,
           std::array<uintptr_t, 6> features, int device, uintptr_t stream) {
          ZeroDceMatrices network{x,
                                  out,
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
  m.def("smoothness_forward", [](View illum, View guide, View parts, Sizes sizes, int color, bool scalar,
                                 double kappa, int device, uintptr_t stream) {
    const Smoothness settings{sizes, static_cast<Color>(color), scalar, kappa};
    smoothness_forward_cuda(illum, guide, static_cast<double*>(parts.data), settings, device,
                            reinterpret_cast<void*>(stream));
  });
  m.def("smoothness_backward", [](View illum, View guide, View grad_illum, View grad_guide, View grad,
                                  View means, Sizes sizes, int color, bool scalar, double kappa,
                                  std::array<bool, 2> needs, int device, uintptr_t stream) {
    const Smoothness settings{sizes, static_cast<Color>(color), scalar, kappa};
    smoothness_backward_cuda(illum, guide, view_if(needs[0], grad_illum), view_if(needs[1], grad_guide),
                             static_cast<const double*>(grad.data), static_cast<const double*>(means.data),
                             settings, device, reinterpret_cast<void*>(stream));
  });
  m.def("smoothness_colours",
        [](View grad_colours, View grad_guide, int64_t triples, int device, uintptr_t stream) {
          smoothness_colours_cuda(grad_colours, grad_guide, triples, device, reinterpret_cast<void*>(stream));
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
                                    View grad_x, View grad_alpha, Sizes sizes, bool shared, int64_t steps,
                                    bool tanh, double level, std::array<bool, 2> needs, int device,
                                    uintptr_t stream) {
    zero_reference_slopes_cuda(x, alpha,
                               {nullptr, cells.data, patches.data, static_cast<double*>(means.data)}, grad,
                               view_if(needs[0], grad_x), view_if(needs[1], grad_alpha),
                               {sizes, shared, steps, tanh}, level, device, reinterpret_cast<void*>(stream));
  });
}
