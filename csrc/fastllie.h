// What the native modules offer: plain functions on pointers. Nothing here knows torch.
#pragma once
#include <array>
#include <cstdint>

namespace fastllie {

enum class Dtype { f64, f32, bf16, f16, u8 };

// A [B, C, H, W] tensor: where it is, what it holds, and its strides in elements.
struct View {
  void* data;
  Dtype dtype;
  int64_t strides[4];
};

using Sizes = std::array<int64_t, 4>;  // B, C, H, W

// LE(x) = x + alpha x (1 - x), `steps` times. alpha has sizes[1] maps where `shared`, else steps * sizes[1].
struct Curve {
  Sizes sizes;  // of the image
  bool shared;  // one map for every step
  int64_t steps;
  bool tanh;  // alpha holds the arguments of tanh
};

// The dtypes of image and maps are equal, or the image is float32 and the maps are bfloat16 or float16.

void curve_forward_cpu(const View& x, const View& alpha, const View& out, const Curve& curve, int threads);
// A gradient whose data pointer is null is neither computed nor written.
void curve_backward_cpu(const View& grad, const View& x, const View& alpha, const View& grad_x,
                        const View& grad_alpha, const Curve& curve, int threads);

void curve_forward_cuda(const View& x, const View& alpha, const View& out, const Curve& curve, int device,
                        void* stream);
void curve_backward_cuda(const View& grad, const View& x, const View& alpha, const View& grad_x,
                         const View& grad_alpha, const Curve& curve, int device, void* stream);

// The curve with black levels, looked up in a bilateral grid; see fastllie.ops.apply_grid_curve. The grid is
// contiguous, [B, rows, columns, lumas, 6], float64 for a float64 image and else float32.
struct GridCurve {
  Sizes sizes;                   // of the image
  std::array<int64_t, 3> cells;  // of the grid: lumas, rows, columns
  std::array<int64_t, 2> place;  // row and column of the image's first pixel in its picture
  std::array<int64_t, 2> whole;  // height and width of the picture
  int64_t steps;
};

// In how many bands and tiles the pixels between the middles of four cells are summed up.
std::array<int64_t, 2> gridcurve_parts_cpu(const GridCurve& curve);
std::array<int64_t, 2> gridcurve_parts_cuda(const GridCurve& curve);

void gridcurve_forward_cpu(const View& x, const void* grid, const View& guide, const View& out,
                           const GridCurve& curve, int threads);
// Gradients with null pointers are not wanted. That of the grid is left in parts to be added up, [B, gaps of
// rows, bands, gaps of columns, tiles, 2, 2, lumas, 6]: of the cells before and behind each gap.
void gridcurve_backward_cpu(const View& grad, const View& x, const void* grid, const View& guide,
                            const View& grad_x, const View& grad_guide, double* parts, const GridCurve& curve,
                            int threads);

void gridcurve_forward_cuda(const View& x, const void* grid, const View& guide, const View& out,
                            const GridCurve& curve, int device, void* stream);
void gridcurve_backward_cuda(const View& grad, const View& x, const void* grid, const View& guide,
                             const View& grad_x, const View& grad_guide, double* parts,
                             const GridCurve& curve, int device, void* stream);

// r = clamp(x / illum, 0, 1), and illum = clamp(sigmoid(raw) + v, 1e-4, 1) with r = clamp(y / illum, 0, 1):
// all tensors of one shape and dtype.

void illumination_forward_cpu(const View& x, const View& illum, const View& out, const Sizes& sizes,
                              int threads);
void illumination_backward_cpu(const View& grad, const View& x, const View& illum, const View& grad_x,
                               const View& grad_illum, const Sizes& sizes, int threads);
void illuminate_forward_cpu(const View& raw, const View& v, const View& y, const View& illum, const View& out,
                            const Sizes& sizes, int threads);
void illuminate_backward_cpu(const View& grad_illum, const View& grad_out, const View& raw, const View& v,
                             const View& y, const View& grad_raw, const View& grad_v, const View& grad_y,
                             const Sizes& sizes, int threads);

void illumination_forward_cuda(const View& x, const View& illum, const View& out, const Sizes& sizes,
                               int device, void* stream);
void illumination_backward_cuda(const View& grad, const View& x, const View& illum, const View& grad_x,
                                const View& grad_illum, const Sizes& sizes, int device, void* stream);
void illuminate_forward_cuda(const View& raw, const View& v, const View& y, const View& illum,
                             const View& out, const Sizes& sizes, int device, void* stream);
void illuminate_backward_cuda(const View& grad_illum, const View& grad_out, const View& raw, const View& v,
                              const View& y, const View& grad_raw, const View& grad_v, const View& grad_y,
                              const Sizes& sizes, int device, void* stream);

// SCI's enhancement network on images of three channels: three convolutions of 3 x 3 with ReLU, the residual
// of the second one, sigmoid, clamp and division in one pass. The image may hold bytes; weights [3, 3, 3, 3,
// 3] and biases [3, 3] are contiguous, float64 for a float64 image and else float32.
struct Sci {
  Sizes sizes;
  bool residual;
  bool reflect;  // each layer's input is mirrored at the image's edges; else zero outside
};

void sci_forward_cpu(const View& x, const View& weights, const View& biases, const View& out, const Sci& sci,
                     int threads);
void sci_forward_cuda(const View& x, const View& weights, const View& biases, const View& out, const Sci& sci,
                      int device, void* stream);

// Convolutions of 3 x 3 or 1 x 1 with stride 1 on tensors whose channels are interleaved (strides[1] == 1),
// float32 or bfloat16. The input is a concatenation of one or two sources.
enum class Sampling {
  same,
  pooled,     // the largest of each 2 x 2 pixels
  enlarged,   // twice the size, bilinear, half-pixel centres
  stretched,  // twice the size, bilinear, corners aligned
};

struct Source {
  View view;
  int64_t channels, height, width;  // before the sampling
  Sampling sampling;
  View map;  // multiplies every channel of a pixel, [B, 1, ., .] in float32 after the sampling; or null
};

// How the sums are made; the layout of the packed weights follows it: see fastllie.ops.convolution.
enum class Arithmetic { direct, pairs, winograd2, winograd2_pairs, winograd4, winograd4_pairs, tiles };

struct Convolution {
  Source sources[2];
  int64_t count;  // of sources
  View out;
  Sizes sizes;   // of the output
  int64_t side;  // 3 or 1
  int64_t pad;   // rows and columns of zeros on each side
  Arithmetic arithmetic;
  const void* weights;
  const float* epilogue;  // bias, scale and shift of each output channel, rounded up to whole blocks of 32
  float slope;            // of what is below zero after the bias; then comes the affine function
  bool affine;
};

void convolution_forward_cpu(const Convolution& convolution, int threads);

// Packs kernels of 3 x 3 for the arithmetics in float32, `turned` by half a turn: with the strides of inputs
// and outputs exchanged they make the gradient of the input. Ask for room for the outputs rounded up to 32.
struct KernelPacking {
  const float* kernels;
  int64_t strides[4];  // of outputs, inputs, rows, columns
  int64_t outputs, inputs;
  bool turned;
  Arithmetic arithmetic;
  float* to;
};

void convolution_pack_cpu(const KernelPacking& packing, int threads);

// The gradient of kernels of 3 x 3 with stride 1, from float32 tensors whose channels are interleaved.
struct KernelGradient {
  View x, grad;  // the input, and the gradient of the output
  Sizes x_sizes, grad_sizes;
  int64_t pad;  // rows and columns of zeros on each side of the input
  float* to;
  int64_t strides[4];  // of outputs, inputs, rows, columns
};

int64_t convolution_gradient_floats_cpu(const KernelGradient& gradient);  // of the workspace
void convolution_gradient_cpu(const KernelGradient& gradient, float* workspace, int threads);

// Pictures of three channels as an exposure meter shows them, see fastllie.ops.expose: float32, bfloat16 or
// float16, and x may hold bytes.
struct Exposure {
  View x, out;
  Sizes sizes;
  const float* gains;  // one a picture
  bool keep_hue;
};

void exposure_forward_cpu(const Exposure& exposure, int threads);

// The mean square of the luma of each row of such pictures, [B, H].
struct Light {
  View x;
  Sizes sizes;
  std::array<float, 3> weights;  // of red, green and blue
  double* out;
};

void exposure_light_cpu(const Light& light, int threads);

// Zero-DCE's network, and its curve: seven 3 x 3 convolutions with skips between them, tanh, eight steps.
// Weights and biases are packed as for `arithmetic`: winograd4 or winograd4_pairs, and then direct for the
// first layer; or tiles, and then each 32 inputs as a convolution of their own.
struct ZeroDce {
  View x, out;
  Sizes sizes;     // of the output
  int64_t around;  // pixels on each side that x has besides; x.data is the first pixel within them
  bool zeros;      // each layer finds zeros outside of the image; else the image's nearest pixel goes on
  Arithmetic arithmetic;
  const void* weights[7];
  const float* epilogues[7];
};

void zerodce_forward_cpu(const ZeroDce& network, int threads);

// The same for tensor cores: image and features are float16, or all bfloat16. Matrices and biases are packed
// by fastllie.ops.fragments; features of layers 1 to 6 are [B, H + 2 m, W + 2 m, 32], m = 0 where `zeros`,
// else 7 - l.
struct ZeroDceMatrices {
  View x, out;
  int64_t sizes[4];  // of the output: B, C, H, W
  int64_t around;    // as above
  bool zeros;
  const void* matrices;  // [2640, 32]
  const float* biases;   // [7, 32]
  void* features[6];     // those of layers 4 and 6 may be one
};

void zerodce_forward_cuda(const ZeroDceMatrices& network, int device, void* stream);

// Zero-DCE++: seven depthwise and pointwise convolutions on the image reduced by `scale`, and its curve with
// one map. Weights are those of one layer after the other: see fastllie.ops.zerodcepp.
struct ZeroDcePP {
  View x, out;
  Sizes sizes;     // of the output
  int64_t around;  // pixels on each side that x has besides; x.data is the first pixel within them
  bool zeros;      // each layer finds zeros outside of the image; else the image's nearest pixel goes on
  int64_t scale;
  const float* weights;
  float* maps;  // where they are kept until they are enlarged, rows of whole blocks of 16; null for scale 1
};

void zerodcepp_forward_cpu(const ZeroDcePP& network, int threads);

// dawn: the denoiser's pyramid in v = x / (x + mean), then black levels and the curve from the grid; see
// fastllie.ops.dawn. All but x and out is float32 and contiguous.
struct Dawn {
  View x, out;
  Sizes sizes;
  int64_t place[2], whole[2];  // of the first pixel in its picture, and that picture's size
  const float* grid;           // [B, 6, 8, 8, 12]
  const float* means;          // [B]
  const float* gains;          // [B, 4, 3]
  const float* biases;         // [B, 84]
  const void* weights;         // float, or where `pairs` as bfloat16 for the products of tiles
  bool pairs;
  float denoise;     // from 0 to 1; where it is 0 gains, biases, weights and workspace are not read
  bool bgr;          // the order of the colours in x and out
  float* workspace;  // of dawn_floats_cpu
};

int64_t dawn_floats_cpu(const Sizes& sizes);
void dawn_forward_cpu(const Dawn& network, int threads);

// Means over 64 x 96 equal parts, for images of at least as many rows and columns.
struct DawnThumbnail {
  View x;
  Sizes sizes;
  float* out;  // [B, 3, 64, 96]
};

void dawn_thumbnail_cpu(const DawnThumbnail& thumbnail, int threads);

// How much noise there is in v, measured at 48 x 64 places.
struct DawnNoise {
  View x;
  Sizes sizes;
  const float* means;  // [B]
  bool bgr;
  float* magnitudes;  // [B, 6, 48 * 64], of the coefficients at each place
  float* out;         // [B, 6]
};

void dawn_noise_cpu(const DawnNoise& noise, int threads);

// The grid of curves, from what is known of whole pictures. All is float32 and contiguous.
struct DawnBrain {
  int64_t images;
  const float* thumbs;            // [B, 3, 64, 96]
  const float* means;             // [B]
  const float* noises;            // [B, 6]
  std::array<int64_t, 8> places;  // of percentiles among the thumbnail's lumas in order, rising
  const float* weights;
  float* workspace;  // of dawn_brain_floats_cpu
  float* out;        // [B, 6, 8, 8, 12]
};

int64_t dawn_brain_floats_cpu();
void dawn_brain_cpu(const DawnBrain& brain, int threads);

// The smoothness loss; see fastllie.ops.smoothness_loss.
constexpr int OFFSETS = 12;  // from a pixel to its partners
constexpr int REACH = 2;     // of an offset, in each direction

enum class Color { ycbcr, memory, rgb };

struct Smoothness {
  Sizes sizes;  // three channels
  Color color;  // `memory` wants a contiguous guide
  bool scalar;  // the mean weight times the mean difference, not the mean of products
  double kappa;
};

// Parts that the forward leaves to be added up: each one mean of w |d|, or twelve of w and twelve of |d|.
int64_t smoothness_blocks_cpu(const Sizes& sizes);
int64_t smoothness_blocks_cuda(const Sizes& sizes);

void smoothness_forward_cpu(const View& illum, const View& guide, double* parts, const Smoothness& settings,
                            int threads);
// `grad` and the `means` (the sum of the parts, used where `scalar`) are one and 24 numbers. Where `color` is
// `memory` the gradient of the guide is that of its colours, contiguous, in the type of the arithmetic, until
// smoothness_colours takes it back.
void smoothness_backward_cpu(const View& illum, const View& guide, const View& grad_illum,
                             const View& grad_guide, const double* grad, const double* means,
                             const Smoothness& settings, int threads);
// From the gradient of `triples` colours to that of three values each; in place where both are one.
void smoothness_colours_cpu(const View& grad_colours, const View& grad_guide, int64_t triples, int threads);

void smoothness_forward_cuda(const View& illum, const View& guide, double* parts, const Smoothness& settings,
                             int device, void* stream);
void smoothness_backward_cuda(const View& illum, const View& guide, const View& grad_illum,
                              const View& grad_guide, const double* grad, const double* means,
                              const Smoothness& settings, int device, void* stream);
void smoothness_colours_cuda(const View& grad_colours, const View& grad_guide, int64_t triples, int device,
                             void* stream);

// The losses that train Zero-DCE on the curve's maps and result; see fastllie.ops.zero_reference_losses.
constexpr int64_t CELL = 4, PATCH = 16;  // sides of the regions that have means of their own

// Of the enhanced image the means that three losses are made of, and the losses: contiguous, float64 for a
// float64 image and else float32.
struct ZeroReference {
  void* losses;   // [4]
  void* cells;    // [B, H / 4, W / 4], of enhanced minus given
  void* patches;  // [B, H / 16, W / 16], of enhanced
  double* means;  // [B, 3], of the channels
};

// The workspace is of so many numbers; `grad` is that of the losses, in their type.
int64_t zero_reference_doubles_cpu(const Sizes& sizes);
void zero_reference_losses_cpu(const View& x, const View& alpha, const ZeroReference& found,
                               double* workspace, const Curve& curve, double level, int threads);
void zero_reference_slopes_cpu(const View& x, const View& alpha, const ZeroReference& found, const View& grad,
                               const View& grad_x, const View& grad_alpha, const Curve& curve, double level,
                               int threads);

// On a GPU each way is at most three launches, all of them kernels of our own.
int64_t zero_reference_doubles_cuda(const Sizes& sizes);
void zero_reference_losses_cuda(const View& x, const View& alpha, const ZeroReference& found,
                                double* workspace, const Curve& curve, double level, int device,
                                void* stream);
void zero_reference_slopes_cuda(const View& x, const View& alpha, const ZeroReference& found,
                                const View& grad, const View& grad_x, const View& grad_alpha,
                                const Curve& curve, double level, int device, void* stream);

}  // namespace fastllie
