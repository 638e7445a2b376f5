#include "bind.h"
#include "cpu/isa.h"
#include "cpu/views.h"

namespace py = pybind11;
using namespace fastllie;

namespace {

// Other Python threads go on while a kernel runs.
using NoGil = py::call_guard<py::gil_scoped_release>;

View wanted(bool needed, View v) {
  if (!needed) v.data = nullptr;
  return v;
}

template <class T>
T* at(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

void bind_isa(py::module_& m) {
  m.def("isa", isa_name, "The instruction set in use.");
  m.def("isas", isa_names, "The instruction sets that this machine can run, narrowest first.");
  m.def("set_isa", set_isa, "Use another instruction set; for tests.");
  m.def("has_bf16", has_bf16, "Whether products of pairs of bfloat16 are in use.");
  m.def("has_tiles", has_tiles, "Whether products of tiles of bfloat16 are in use.");
  m.def("expect_whole_pages", [](uintptr_t address, int64_t bytes) {
    expect_whole_pages({at<void>(address), Dtype::u8, {}}, bytes);
  });
}

void expect_tiles(bool wanted) {
  if (wanted && !has_tiles()) throw std::invalid_argument("this machine has no tiles of bfloat16");
}

void bind_convolution(py::module_& m) {
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
      .value("winograd4_pairs", Arithmetic::winograd4_pairs)
      .value("tiles", Arithmetic::tiles);
  m.def(
      "convolution_forward",
      [](const std::vector<std::tuple<View, Sizes, Sampling, View>>& sources, View out, Sizes sizes,
         int64_t side, int64_t pad, Arithmetic arithmetic, uintptr_t weights, uintptr_t epilogue, float slope,
         bool affine, int threads) {
        expect_tiles(arithmetic == Arithmetic::tiles);
        Convolution c{};
        for (const auto& [x, shape, sampling, map] : sources)
          c.sources[c.count++] = {x, shape[1], shape[2], shape[3], sampling, map};
        c.out = out;
        c.sizes = sizes;
        c.side = side;
        c.pad = pad;
        c.arithmetic = arithmetic;
        c.weights = at<const void>(weights);
        c.epilogue = at<const float>(epilogue);
        c.slope = slope;
        c.affine = affine;
        convolution_forward_cpu(c, threads);
      },
      NoGil());
}

void bind_convolution_training(py::module_& m) {
  m.def(
      "convolution_pack",
      [](View kernels, int64_t outputs, int64_t inputs, bool turned, Arithmetic arithmetic, uintptr_t to,
         int threads) {
        const auto& s = kernels.strides;
        convolution_pack_cpu({static_cast<const float*>(kernels.data),
                              {s[0], s[1], s[2], s[3]},
                              outputs,
                              inputs,
                              turned,
                              arithmetic,
                              at<float>(to)},
                             threads);
      },
      NoGil());
  const auto gradient_of = [](View x, Sizes x_sizes, View grad, Sizes grad_sizes, int64_t pad, View to) {
    const auto& s = to.strides;
    return KernelGradient{
        x, grad, x_sizes, grad_sizes, pad, static_cast<float*>(to.data), {s[0], s[1], s[2], s[3]}};
  };
  m.def("convolution_gradient_floats",
        [gradient_of](View x, Sizes x_sizes, View grad, Sizes grad_sizes, int64_t pad, View to) {
          return convolution_gradient_floats_cpu(gradient_of(x, x_sizes, grad, grad_sizes, pad, to));
        });
  m.def(
      "convolution_gradient",
      [gradient_of](View x, Sizes x_sizes, View grad, Sizes grad_sizes, int64_t pad, View to,
                    uintptr_t workspace, int threads) {
        convolution_gradient_cpu(gradient_of(x, x_sizes, grad, grad_sizes, pad, to), at<float>(workspace),
                                 threads);
      },
      NoGil());
}

void bind_zerodce(py::module_& m) {
  m.def(
      "zerodce_forward",
      [](View x, View out, Sizes sizes, int64_t around, bool zeros, Arithmetic arithmetic,
         const std::array<uintptr_t, 7>& weights, const std::array<uintptr_t, 7>& epilogues, int threads) {
        expect_tiles(arithmetic == Arithmetic::tiles);
        ZeroDce network{x, out, sizes, around, zeros, arithmetic, {}, {}};
        for (int l = 0; l < 7; ++l) {
          network.weights[l] = at<const void>(weights[l]);
          network.epilogues[l] = at<const float>(epilogues[l]);
        }
        zerodce_forward_cpu(network, threads);
      },
      NoGil());
}

void bind_zerodcepp(py::module_& m) {
  m.def(
      "zerodcepp_forward",
      [](View x, View out, Sizes sizes, int64_t around, bool zeros, int64_t scale, uintptr_t weights,
         uintptr_t maps, int threads) {
        zerodcepp_forward_cpu(
            {x, out, sizes, around, zeros, scale, at<const float>(weights), at<float>(maps)}, threads);
      },
      NoGil());
}

void bind_curve(py::module_& m) {
  m.def(
      "curve_forward",
      [](View x, View alpha, View out, Sizes sizes, bool shared, int64_t steps, bool tanh, int threads) {
        curve_forward_cpu(x, alpha, out, {sizes, shared, steps, tanh}, threads);
      },
      NoGil());
  m.def(
      "curve_backward",
      [](View grad, View x, View alpha, View grad_x, View grad_alpha, Sizes sizes, bool shared, int64_t steps,
         bool tanh, bool need_x, bool need_alpha, int threads) {
        curve_backward_cpu(grad, x, alpha, wanted(need_x, grad_x), wanted(need_alpha, grad_alpha),
                           {sizes, shared, steps, tanh}, threads);
      },
      NoGil());
}

void bind_illumination(py::module_& m) {
  m.def("illumination_forward", illumination_forward_cpu, NoGil());
  m.def(
      "illumination_backward",
      [](View grad, View x, View illum, View grad_x, View grad_illum, Sizes sizes, std::array<bool, 2> needs,
         int threads) {
        illumination_backward_cpu(grad, x, illum, wanted(needs[0], grad_x), wanted(needs[1], grad_illum),
                                  sizes, threads);
      },
      NoGil());
  m.def("illuminate_forward", illuminate_forward_cpu, NoGil());
  m.def(
      "illuminate_backward",
      [](View grad_illum, View grad_out, View raw, View v, View y, View grad_raw, View grad_v, View grad_y,
         Sizes sizes, std::array<bool, 3> needs, int threads) {
        illuminate_backward_cpu(grad_illum, grad_out, raw, v, y, wanted(needs[0], grad_raw),
                                wanted(needs[1], grad_v), wanted(needs[2], grad_y), sizes, threads);
      },
      NoGil());
}

void bind_dawn(py::module_& m) {
  m.def("dawn_floats", dawn_floats_cpu);
  m.def(
      "dawn_forward",
      [](View x, View out, Sizes sizes, std::array<int64_t, 2> place, std::array<int64_t, 2> whole,
         const std::array<uintptr_t, 5>& parts, bool pairs, float denoise, bool bgr, uintptr_t workspace,
         int threads) {
        expect_tiles(pairs);
        const auto part = [&](int i) { return at<const float>(parts[i]); };
        dawn_forward_cpu({x,
                          out,
                          sizes,
                          {place[0], place[1]},
                          {whole[0], whole[1]},
                          part(0),
                          part(1),
                          part(2),
                          part(3),
                          at<const void>(parts[4]),
                          pairs,
                          denoise,
                          bgr,
                          at<float>(workspace)},
                         threads);
      },
      NoGil());
  m.def(
      "dawn_thumbnail",
      [](View x, Sizes sizes, uintptr_t out, int threads) {
        dawn_thumbnail_cpu({x, sizes, at<float>(out)}, threads);
      },
      NoGil());
  m.def(
      "dawn_noise",
      [](View x, Sizes sizes, uintptr_t means, bool bgr, uintptr_t magnitudes, uintptr_t out, int threads) {
        dawn_noise_cpu({x, sizes, at<const float>(means), bgr, at<float>(magnitudes), at<float>(out)},
                       threads);
      },
      NoGil());
  m.def("dawn_brain_floats", dawn_brain_floats_cpu);
  m.def(
      "dawn_brain",
      [](int64_t images, const std::array<uintptr_t, 3>& known, const std::array<int64_t, 8>& places,
         uintptr_t weights, uintptr_t workspace, uintptr_t out, int threads) {
        const auto part = [&](int i) { return at<const float>(known[i]); };
        dawn_brain_cpu({images, part(0), part(1), part(2), places, at<const float>(weights),
                        at<float>(workspace), at<float>(out)},
                       threads);
      },
      NoGil());
}

void bind_gridcurve(py::module_& m) {
  using Pair = std::array<int64_t, 2>;
  using Cells = std::array<int64_t, 3>;
  m.def("gridcurve_parts", [](Sizes sizes, Cells cells, Pair place, Pair whole) {
    return gridcurve_parts_cpu({sizes, cells, place, whole, 0});
  });
  m.def(
      "gridcurve_forward",
      [](View x, View grid, View guide, View out, Sizes sizes, Cells cells, Pair place, Pair whole,
         int64_t steps, int threads) {
        gridcurve_forward_cpu(x, grid.data, guide, out, {sizes, cells, place, whole, steps}, threads);
      },
      NoGil());
  m.def(
      "gridcurve_backward",
      [](View grad, View x, View grid, View guide, View grad_x, View grad_guide, View parts, Sizes sizes,
         Cells cells, Pair place, Pair whole, int64_t steps, std::array<bool, 3> needs, int threads) {
        gridcurve_backward_cpu(
            grad, x, grid.data, guide, wanted(needs[0], grad_x), wanted(needs[2], grad_guide),
            static_cast<double*>(wanted(needs[1], parts).data), {sizes, cells, place, whole, steps}, threads);
      },
      NoGil());
}

void bind_exposure(py::module_& m) {
  m.def(
      "exposure_forward",
      [](View x, View out, Sizes sizes, uintptr_t gains, bool keep_hue, int threads) {
        exposure_forward_cpu({x, out, sizes, at<const float>(gains), keep_hue}, threads);
      },
      NoGil());
  m.def(
      "exposure_light",
      [](View x, Sizes sizes, std::array<float, 3> weights, uintptr_t out, int threads) {
        exposure_light_cpu({x, sizes, weights, at<double>(out)}, threads);
      },
      NoGil());
}

void bind_sci(py::module_& m) {
  m.def(
      "sci_forward",
      [](View x, View weights, View biases, View out, Sizes sizes, bool residual, bool reflect, int threads) {
        sci_forward_cpu(x, weights, biases, out, {sizes, residual, reflect}, threads);
      },
      NoGil());
}

void bind_smoothness(py::module_& m) {
  m.def("smoothness_blocks", smoothness_blocks_cpu);
  m.def(
      "smoothness_forward",
      [](View illum, View guide, View parts, Sizes sizes, int color, bool scalar, double kappa, int threads) {
        smoothness_forward_cpu(illum, guide, static_cast<double*>(parts.data),
                               {sizes, static_cast<Color>(color), scalar, kappa}, threads);
      },
      NoGil());
  m.def(
      "smoothness_backward",
      [](View illum, View guide, View grad_illum, View grad_guide, View grad, View means, Sizes sizes,
         int color, bool scalar, double kappa, std::array<bool, 2> needs, int threads) {
        smoothness_backward_cpu(illum, guide, wanted(needs[0], grad_illum), wanted(needs[1], grad_guide),
                                static_cast<const double*>(grad.data), static_cast<const double*>(means.data),
                                {sizes, static_cast<Color>(color), scalar, kappa}, threads);
      },
      NoGil());
  m.def("smoothness_colours", smoothness_colours_cpu, NoGil());
}

void bind_zero_reference(py::module_& m) {
  m.def("zero_reference_doubles", zero_reference_doubles_cpu);
  m.def(
      "zero_reference_losses",
      [](View x, View alpha, View losses, View cells, View patches, View means, View workspace, Sizes sizes,
         bool shared, int64_t steps, bool tanh, double level, int threads) {
        zero_reference_losses_cpu(
            x, alpha, {losses.data, cells.data, patches.data, static_cast<double*>(means.data)},
            static_cast<double*>(workspace.data), {sizes, shared, steps, tanh}, level, threads);
      },
      NoGil());
  m.def(
      "zero_reference_slopes",
      [](View x, View alpha, View cells, View patches, View means, View grad, View grad_x, View grad_alpha,
         Sizes sizes, bool shared, int64_t steps, bool tanh, double level, std::array<bool, 2> needs,
         int threads) {
        zero_reference_slopes_cpu(x, alpha,
                                  {nullptr, cells.data, patches.data, static_cast<double*>(means.data)}, grad,
                                  wanted(needs[0], grad_x), wanted(needs[1], grad_alpha),
                                  {sizes, shared, steps, tanh}, level, threads);
      },
      NoGil());
}

}  // namespace

// Nothing is shared that has no lock of its own: a Python without the GIL may keep it off.
PYBIND11_MODULE(_cpu, m, py::mod_gil_not_used()) {
  m.doc() = "fastllie's CPU kernels. They trust their pointers: only fastllie.ops calls them.";
  bind_isa(m);
  bind_convolution(m);
  bind_convolution_training(m);
  bind_curve(m);
  bind_dawn(m);
  bind_exposure(m);
  bind_gridcurve(m);
  bind_illumination(m);
  bind_sci(m);
  bind_smoothness(m);
  bind_zero_reference(m);
  bind_zerodce(m);
  bind_zerodcepp(m);
}
