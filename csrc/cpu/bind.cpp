#include "bind.h"
#include "cpu/isa.h"
#include "cpu/views.h"

namespace py = pybind11;
using namespace fastllie;

PYBIND11_MODULE(_cpu, m) {
  m.doc() = "fastllie's CPU kernels. They trust their pointers: only fastllie.ops calls them.";
  m.def("isa", isa_name, "The instruction set in use.");
  m.def("isas", isa_names, "The instruction sets that this machine can run, narrowest first.");
  m.def("set_isa", set_isa, "Use another instruction set; for tests.");
  m.def("has_bf16", has_bf16, "Whether products of pairs of bfloat16 are in use.");
  m.def("expect_whole_pages", [](uintptr_t pointer, int64_t bytes) {
    expect_whole_pages({reinterpret_cast<void*>(pointer), Dtype::u8, {}}, bytes);
  });
  py::enum_<Sampling>(m, "Sampling")
      .value("same", Sampling::same)
      .value("pooled", Sampling::pooled)
      .value("enlarged", Sampling::enlarged)
      .value("stretched", Sampling::stretched);
  py::enum_<Arithmetic>(m, "Arithmetic")
      .value("direct", Arithmetic::direct)
      .value("pairs", Arithmetic::pairs)
      .value("winograd2", Arithmetic::winograd2)
      .value("winograd2_pairs", Arithmetic::winograd2_pairs)
      .value("winograd4", Arithmetic::winograd4)
      .value("winograd4_pairs", Arithmetic::winograd4_pairs);
  m.def("convolution_forward",
        [](const std::vector<std::tuple<Handle, Sizes, Sampling, Handle>>& sources, const Handle& out,
           Sizes sizes, int64_t side, int64_t pad, Arithmetic arithmetic, uintptr_t weights,
           uintptr_t epilogue, float slope, bool affine, int threads) {
          Convolution c{};
          c.count = int64_t(sources.size());
          for (int64_t i = 0; i < c.count; ++i) {
            const auto& [handle, shape, sampling, map] = sources[i];
            c.sources[i] = {view(handle), shape[1], shape[2], shape[3], sampling, view(map)};
          }
          c.out = view(out);
          c.sizes = sizes;
          c.side = side;
          c.pad = pad;
          c.arithmetic = arithmetic;
          c.weights = reinterpret_cast<const void*>(weights);
          c.epilogue = reinterpret_cast<const float*>(epilogue);
          c.slope = slope;
          c.affine = affine;
          py::gil_scoped_release release;
          convolution_forward_cpu(c, threads);
        });
  m.def("convolution_pack", [](const Handle& kernels, int64_t outputs, int64_t inputs, bool turned,
                               Arithmetic arithmetic, uintptr_t to, int threads) {
    const View v = view(kernels);
    const KernelPacking packing{static_cast<const float*>(v.data),
                                {v.strides[0], v.strides[1], v.strides[2], v.strides[3]},
                                outputs,
                                inputs,
                                turned,
                                arithmetic,
                                reinterpret_cast<float*>(to)};
    py::gil_scoped_release release;
    convolution_pack_cpu(packing, threads);
  });
  const auto gradient_of = [](const Handle& x, const Sizes& x_sizes, const Handle& grad,
                              const Sizes& grad_sizes, int64_t pad, const Handle& to) {
    const View v = view(to);
    return KernelGradient{view(x),
                          view(grad),
                          x_sizes,
                          grad_sizes,
                          pad,
                          static_cast<float*>(v.data),
                          {v.strides[0], v.strides[1], v.strides[2], v.strides[3]}};
  };
  m.def("convolution_gradient_floats", [gradient_of](const Handle& x, Sizes x_sizes, const Handle& grad,
                                                     Sizes grad_sizes, int64_t pad, const Handle& to) {
    return convolution_gradient_floats_cpu(gradient_of(x, x_sizes, grad, grad_sizes, pad, to));
  });
  m.def("convolution_gradient",
        [gradient_of](const Handle& x, Sizes x_sizes, const Handle& grad, Sizes grad_sizes, int64_t pad,
                      const Handle& to, uintptr_t workspace, int threads) {
          const KernelGradient gradient = gradient_of(x, x_sizes, grad, grad_sizes, pad, to);
          py::gil_scoped_release release;
          convolution_gradient_cpu(gradient, reinterpret_cast<float*>(workspace), threads);
        });
  m.def("zerodce_forward",
        [](const Handle& x, const Handle& out, Sizes sizes, int64_t around, bool zeros, bool pairs,
           const std::array<uintptr_t, 7>& weights, const std::array<uintptr_t, 7>& epilogues, int threads) {
          ZeroDce network{view(x), view(out), sizes, around, zeros, pairs, {}, {}};
          for (int l = 0; l < 7; ++l) {
            network.weights[l] = reinterpret_cast<const void*>(weights[l]);
            network.epilogues[l] = reinterpret_cast<const float*>(epilogues[l]);
          }
          py::gil_scoped_release release;
          zerodce_forward_cpu(network, threads);
        });
  m.def("zerodcepp_forward", [](const Handle& x, const Handle& out, Sizes sizes, int64_t around, bool zeros,
                               int64_t scale, uintptr_t weights, uintptr_t maps, int threads) {
    const ZeroDcePP network{view(x),
                           view(out),
                           sizes,
                           around,
                           zeros,
                           scale,
                           reinterpret_cast<const float*>(weights),
                           reinterpret_cast<float*>(maps)};
    py::gil_scoped_release release;
    zerodcepp_forward_cpu(network, threads);
  });
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
  m.def("divide_forward",
        [](const Handle& x, const Handle& illum, const Handle& out, Sizes sizes, int threads) {
          const View x_view = view(x), illum_view = view(illum), out_view = view(out);
          py::gil_scoped_release release;
          divide_forward_cpu(x_view, illum_view, out_view, sizes, threads);
        });
  m.def("divide_backward", [](const Handle& grad, const Handle& x, const Handle& illum, const Handle& grad_x,
                              const Handle& grad_illum, Sizes sizes, std::array<bool, 2> needs, int threads) {
    const View grad_view = view(grad), x_view = view(x), illum_view = view(illum),
               grad_x_view = view_if(needs[0], grad_x), grad_illum_view = view_if(needs[1], grad_illum);
    py::gil_scoped_release release;
    divide_backward_cpu(grad_view, x_view, illum_view, grad_x_view, grad_illum_view, sizes, threads);
  });
  m.def("illuminate_forward", [](const Handle& raw, const Handle& v, const Handle& y, const Handle& illum,
                                 const Handle& out, Sizes sizes, int threads) {
    const View raw_view = view(raw), v_view = view(v), y_view = view(y), illum_view = view(illum),
               out_view = view(out);
    py::gil_scoped_release release;
    illuminate_forward_cpu(raw_view, v_view, y_view, illum_view, out_view, sizes, threads);
  });
  m.def("illuminate_backward",
        [](const Handle& grad_illum, const Handle& grad_out, const Handle& raw, const Handle& v,
           const Handle& y, const Handle& grad_raw, const Handle& grad_v, const Handle& grad_y, Sizes sizes,
           std::array<bool, 3> needs, int threads) {
          const View grad_illum_view = view(grad_illum), grad_out_view = view(grad_out), raw_view = view(raw),
                     v_view = view(v), y_view = view(y), grad_raw_view = view_if(needs[0], grad_raw),
                     grad_v_view = view_if(needs[1], grad_v), grad_y_view = view_if(needs[2], grad_y);
          py::gil_scoped_release release;
          illuminate_backward_cpu(grad_illum_view, grad_out_view, raw_view, v_view, y_view, grad_raw_view,
                                  grad_v_view, grad_y_view, sizes, threads);
        });
  m.def("sci_forward", [](const Handle& x, const Handle& weights, const Handle& biases, const Handle& out,
                          Sizes sizes, bool residual, bool reflect, int threads) {
    const View x_view = view(x), weights_view = view(weights), biases_view = view(biases),
               out_view = view(out);
    py::gil_scoped_release release;
    sci_forward_cpu(x_view, weights_view, biases_view, out_view, {sizes, residual, reflect}, threads);
  });
  m.def("smoothness_blocks", smoothness_blocks_cpu);
  m.def("smoothness_forward", [](const Handle& illum, const Handle& guide, const Handle& parts, Sizes sizes,
                                 int color, bool scalar, double kappa, int threads) {
    const View illum_view = view(illum), guide_view = view(guide), parts_view = view(parts);
    const Smoothness settings{sizes, static_cast<Color>(color), scalar, kappa};
    py::gil_scoped_release release;
    smoothness_forward_cpu(illum_view, guide_view, static_cast<double*>(parts_view.data), settings, threads);
  });
  m.def("smoothness_backward",
        [](const Handle& illum, const Handle& guide, const Handle& grad_illum, const Handle& grad_guide,
           const Handle& grad, const Handle& means, Sizes sizes, int color, bool scalar, double kappa,
           std::array<bool, 2> needs, int threads) {
          const View illum_view = view(illum), guide_view = view(guide),
                     grad_illum_view = view_if(needs[0], grad_illum),
                     grad_guide_view = view_if(needs[1], grad_guide), grad_view = view(grad),
                     means_view = view(means);
          const Smoothness settings{sizes, static_cast<Color>(color), scalar, kappa};
          py::gil_scoped_release release;
          smoothness_backward_cpu(illum_view, guide_view, grad_illum_view, grad_guide_view,
                                  static_cast<const double*>(grad_view.data),
                                  static_cast<const double*>(means_view.data), settings, threads);
        });
  m.def("smoothness_colours",
        [](const Handle& grad_colours, const Handle& grad_guide, int64_t triples, int threads) {
          const View colours_view = view(grad_colours), guide_view = view(grad_guide);
          py::gil_scoped_release release;
          smoothness_colours_cpu(colours_view, guide_view, triples, threads);
        });
  m.def("zero_reference_blocks", zero_reference_blocks_cpu);
  m.def("zero_reference_forward", [](const Handle& x, const Handle& alpha, const Handle& cells,
                                     const Handle& patches, const Handle& parts, Sizes sizes, bool shared,
                                     int64_t steps, bool tanh, int threads) {
    const View x_view = view(x), alpha_view = view(alpha), cells_view = view(cells),
               patches_view = view(patches), parts_view = view(parts);
    py::gil_scoped_release release;
    zero_reference_forward_cpu(x_view, alpha_view, cells_view.data, patches_view.data,
                               static_cast<double*>(parts_view.data), {sizes, shared, steps, tanh}, threads);
  });
  m.def("zero_reference_backward",
        [](const Handle& x, const Handle& alpha, const Handle& slopes, const Handle& channels,
           const Handle& grad, const Handle& grad_x, const Handle& grad_alpha, Sizes sizes, bool shared,
           int64_t steps, bool tanh, std::array<bool, 2> needs, int threads) {
          const View x_view = view(x), alpha_view = view(alpha), slopes_view = view(slopes),
                     channels_view = view(channels), grad_view = view(grad),
                     grad_x_view = view_if(needs[0], grad_x), grad_alpha_view = view_if(needs[1], grad_alpha);
          py::gil_scoped_release release;
          zero_reference_backward_cpu(x_view, alpha_view, slopes_view.data, channels_view.data,
                                      static_cast<const double*>(grad_view.data), grad_x_view,
                                      grad_alpha_view, {sizes, shared, steps, tanh}, threads);
        });
}
