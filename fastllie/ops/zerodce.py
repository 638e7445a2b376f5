"""Zero-DCE's whole network and its curve, for inference: one pass on the CPU, on a GPU for tensor cores."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fastllie import _native
from fastllie.ops import backend as backends
from fastllie.ops.checks import check_choice, check_no_gradient, check_on_cpu, check_rgb
from fastllie.ops.convolution import pack_convolution
from fastllie.ops.fragments import pack_biases, pack_fragments
from fastllie.ops.launch import cpu_kernels, has_tiles, kernels
from fastllie.ops.packing import can_run_packed

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
HALVES = (torch.bfloat16, torch.float16)  # what tensor cores multiply
GPU_BACKENDS = ("cuda", "triton")
CAPABILITY = (8, 0)  # the first with bfloat16 in its tensor cores
PADDINGS = ("zeros", "replicate")
LAYERS = 7  # 3x3 convolutions
HALO = LAYERS
FEATURES = 32
# inputs and outputs of each layer
CHANNELS = [(3, 32), (32, 32), (32, 32), (32, 32), (64, 32), (64, 32), (64, 24)]
STEPS = 8


@dataclass(frozen=True)
class PackedZeroDCE:
    """The weights of Zero-DCE's network as its kernels read them: see `pack_zerodce`.

    Attributes:
        weights: One tensor a layer, or one of all for the tensor cores of a GPU.
        epilogues: Likewise the biases, `[7, 32]` for tensor cores.
        arithmetic: Of the CPU's layers, see `pack_convolution`; "" on a GPU. The first layer is "direct"
            where the others are not of "tiles".
        backend: Whose kernels read them.
    """

    weights: tuple[Tensor, ...]
    epilogues: tuple[Tensor, ...]
    arithmetic: str = ""
    backend: str = "cpu"

    @property
    def matrices(self) -> bool:
        """Whether this is for the tensor cores of a GPU."""
        return self.backend in GPU_BACKENDS


def can_run_zerodce(x: Tensor, weights: Sequence[Tensor]) -> bool:
    """Whether `enhance_zerodce` takes over for a module with these weights: see `can_run_packed`.

    On a GPU it does for float16 and bfloat16 where tensor cores multiply both; float32 would lose digits.
    """
    if x.device.type == "cpu" and can_run_packed((x,), weights, DTYPES):
        return True
    # float32 asks no further, nor does what is compiled
    if x.dtype not in HALVES or torch.compiler.is_compiling():
        return False
    if not can_run_packed((x,), weights, HALVES, GPU_BACKENDS):
        return False
    if x.is_cuda and torch.cuda.get_device_capability(x.device) < CAPABILITY:
        return False
    serving = _serving("auto", x)
    return serving in GPU_BACKENDS and x.dtype in _multiplied(serving)


def _multiplied(backend: str) -> tuple[torch.dtype, ...]:
    # Triton's interpreter multiplies the bit patterns of bfloat16 as if they were integers
    return (torch.float16,) if backend == "triton" and backends.interpreting() else HALVES


def pack_zerodce(
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    *,
    dtype: torch.dtype = torch.float32,
    backend: str = "auto",
) -> PackedZeroDCE:
    """Prepare the weights of the seven convolutions for `enhance_zerodce`.

    Args:
        weights: `[32, 3, 3, 3]`, three of `[32, 32, 3, 3]`, two of `[32, 64, 3, 3]`, `[24, 64, 3, 3]`.
        biases: `[32]` six times, `[24]`.
        dtype: Of the images. The features of bfloat16 images are kept and multiplied as bfloat16 where the
            CPU has the instruction (AVX-512 BF16, AMX); everything else is float32 there. On a GPU features
            are kept and multiplied as float16 or bfloat16, and float32 is not taken.
        backend: "cpu", "cuda" or "triton"; "auto" is the one for the device of the weights.

    Raises:
        TypeError: a dtype that `enhance_zerodce` does not take.
        ValueError: other shapes, an unknown backend.
        RuntimeError: a backend that cannot serve.
    """
    backends.check_name(backend)
    if dtype not in DTYPES:
        raise TypeError(f"dtype must be float32, bfloat16 or float16, got {dtype}")
    expected = [(outputs, inputs, 3, 3) for inputs, outputs in CHANNELS]
    if [tuple(weight.shape) for weight in weights] != expected:
        raise ValueError(f"weights must be {expected}, got {[tuple(weight.shape) for weight in weights]}")
    serving = _serving(backend, weights[0])
    if serving in GPU_BACKENDS:
        if dtype not in _multiplied(serving):
            raise TypeError(f"dtype must be one of {_multiplied(serving)} for tensor cores, got {dtype}")
        if serving == "cuda":
            return PackedZeroDCE((pack_fragments(weights, dtype),), (pack_biases(biases),), backend=serving)
        return _pack_matrices(weights, biases, dtype)
    arithmetic = _arithmetic(dtype)
    packed = [
        _pack_layer(weight, bias, arithmetic if place or arithmetic == "tiles" else "direct")
        for place, (weight, bias) in enumerate(zip(weights, biases, strict=True))
    ]
    return PackedZeroDCE(
        tuple(weights for weights, _ in packed), tuple(epilogue for _, epilogue in packed), arithmetic
    )


def _arithmetic(dtype: torch.dtype) -> str:
    if dtype != torch.bfloat16 or _native.cpu is None or not _native.cpu.has_bf16():
        return "winograd4"
    return "tiles" if has_tiles() else "winograd4_pairs"


def _pack_layer(weight: Tensor, bias: Tensor, arithmetic: str) -> tuple[Tensor, Tensor]:
    if arithmetic != "tiles":
        packed = pack_convolution(weight, bias, arithmetic=arithmetic)
        return packed.weights, packed.epilogue
    # features of two layers do not lie side by side
    sources = [pack_convolution(part, bias, arithmetic=arithmetic) for part in weight.split(FEATURES, 1)]
    return torch.cat([source.weights for source in sources]), sources[0].epilogue


def _serving(backend: str, x: Tensor) -> str:
    name = backends.choose(backend, x, "zerodce_forward")
    # an explicit FASTLLIE_BACKEND=torch is a wish about whole networks, which their modules grant
    return "cpu" if name == "torch" and backend == "auto" and x.device.type == "cpu" else name


def _pack_matrices(weights: Sequence[Tensor], biases: Sequence[Tensor], dtype: torch.dtype) -> PackedZeroDCE:
    """For Triton, `[2624, 32]`: of each 32 channels that a layer reads (row, column, channel) by output.

    The 27 rows of the first layer are filled up to 32; `map_columns` says where the last one's outputs lie.
    """
    rows = []
    for weight in weights:
        weight = weight.detach().to(torch.float32)
        if weight.shape[0] != FEATURES:
            weight = _spread(weight)
        for source in weight.split(FEATURES, 1):
            rows.append(source.permute(2, 3, 1, 0).reshape(-1, FEATURES))
    rows[0] = F.pad(rows[0], (0, 0, 0, FEATURES - len(rows[0])))
    wide = [bias.detach().to(torch.float32) for bias in biases]
    wide[-1] = _spread(wide[-1])
    return PackedZeroDCE(
        (torch.cat(rows).to(dtype).contiguous(),), (torch.stack(wide).contiguous(),), backend="triton"
    )


def map_columns() -> list[int]:
    """The column of each map, map 3 k + c of step k and channel c, in the last layer's matrix.

    Column 16 s2 + 8 s1 + 2 c + s0 for step 4 s2 + 2 s1 + s0: what a thread of a matrix product holds of a
    pixel are all steps of one channel.
    """
    return [
        16 * (step // 4) + 8 * (step // 2 % 2) + 2 * channel + step % 2
        for step in range(STEPS)
        for channel in range(3)
    ]


def _spread(maps: Tensor) -> Tensor:
    spread = maps.new_zeros((FEATURES, *maps.shape[1:]))
    spread[map_columns()] = maps
    return spread


def enhance_zerodce(
    x: Tensor,
    packed: PackedZeroDCE,
    *,
    padding: str = "replicate",
    cropped: bool = False,
    backend: str = "auto",
) -> Tensor:
    """Enhance by Zero-DCE: eight steps of the curve x <- x + alpha * x * (1 - x), alpha = tanh(network(x)).

    Seven 3x3 convolutions with 32 channels and symmetric skips; sums are float32. On the CPU in strips whose
    features stay in the cache, by Winograd's algorithm with tiles of 4x4, or directly by AMX; on a GPU layer
    by layer on tensor cores, the features in the dtype of `x`, and the maps in registers only.

    For inference: not differentiable. Any strides are read in place.

    Args:
        x: Images, `[B, 3, H, W]` in [0, 1]; float32 (CPU only), bfloat16 or float16.
        packed: From `pack_zerodce`, for the dtype of `x`, and for its device or backend.
        padding: What each layer finds outside of the image: "zeros" as published, or "replicate", the
            network of an image that goes on with its nearest pixel.
        cropped: Nothing is padded: `x` brings 7 pixels on each side that the result lacks.
        backend: "auto", "cpu", "cuda" or "triton".

    Returns:
        The enhanced images, in the dtype and the memory format of `x`.

    Raises:
        TypeError: an argument that is no tensor, or of another dtype.
        ValueError: another shape, an unknown padding or backend.
        RuntimeError: the compiled module was not built, a tensor on another device than the packed weights
            are for, a GPU without such tensor cores, or a gradient is wanted.
    """
    check_rgb(DTYPES, x)
    check_choice("padding", padding, PADDINGS)
    if cropped and padding == "zeros":
        raise ValueError("cropped images need no padding, got 'zeros'")
    if cropped and min(x.shape[-2:]) < 2 * HALO:
        raise ValueError(f"cropped images must bring {HALO} pixels on each side, got {tuple(x.shape)}")
    backends.check_name(backend)
    check_no_gradient("enhance_zerodce", x)
    if packed.matrices:
        _check_matrices(x, packed, backend)
        return torch.ops.fastllie.zerodce_matrices_forward(
            x, packed.weights[0], packed.epilogues[0], padding, cropped, backend
        )
    check_on_cpu("enhance_zerodce", x)
    if _serving(backend, x) != "cpu":
        raise RuntimeError(f"the weights are packed for the CPU, got backend {backend!r}")
    return torch.ops.fastllie.zerodce_forward(
        x, list(packed.weights), list(packed.epilogues), packed.arithmetic, padding, cropped
    )


def _check_matrices(x: Tensor, packed: PackedZeroDCE, backend: str) -> None:
    (matrices,) = packed.weights
    if x.dtype != matrices.dtype:
        raise TypeError(f"x must be {matrices.dtype}, which the weights are packed for, got {x.dtype}")
    if x.device != matrices.device:
        raise RuntimeError(f"the weights are packed on {matrices.device}, got x on {x.device}")
    if x.is_cuda and torch.cuda.get_device_capability(x.device) < CAPABILITY:
        found = ".".join(map(str, torch.cuda.get_device_capability(x.device)))
        raise RuntimeError(f"enhance_zerodce needs a GPU of compute capability 8.0 or more, got {found}")
    name = _serving(backend, x)
    if name not in GPU_BACKENDS:
        raise RuntimeError(f"the weights are packed for a GPU's tensor cores, got backend {name!r}")
    if name != packed.backend:
        raise RuntimeError(f"the weights are packed for backend {packed.backend!r}, got backend {name!r}")


def inner(x: Tensor, cropped: bool) -> Tensor:
    """`x` without what cropped images bring besides."""
    return x[..., HALO : x.shape[-2] - HALO, HALO : x.shape[-1] - HALO] if cropped else x


def empty_result(x: Tensor, cropped: bool) -> Tensor:
    """The result of `x`, to be filled."""
    if not cropped:
        return torch.empty_like(x)
    interleaved = x.stride(1) == 1 and x.stride(3) == 3
    layout = torch.channels_last if interleaved else torch.contiguous_format
    return torch.empty_like(inner(x, cropped), memory_format=layout)


def _forward(
    x: Tensor, weights: list[Tensor], epilogues: list[Tensor], arithmetic: str, padding: str, cropped: bool
) -> Tensor:
    out = empty_result(x, cropped)
    if out.numel() == 0:
        return out
    module, handles, place = cpu_kernels()
    module.zerodce_forward(
        *handles(inner(x, cropped), out),
        tuple(out.shape),
        HALO if cropped else 0,
        padding == "zeros",
        getattr(module.Arithmetic, arithmetic),
        [weight.data_ptr() for weight in weights],
        [epilogue.data_ptr() for epilogue in epilogues],
        *place,
    )
    return out


def _matrices_forward(
    x: Tensor, matrices: Tensor, biases: Tensor, padding: str, cropped: bool, backend: str
) -> Tensor:
    name = _serving(backend, x)
    out = empty_result(x, cropped)
    if out.numel() == 0:
        return out
    x = inner(x, cropped)
    zeros, around = padding == "zeros", HALO if cropped else 0
    # those of the fourth layer are free by the time that the sixth writes
    features = [_features(x, layer, zeros) for layer in range(1, 6)]
    features.append(features[-2])
    module, handles, place = kernels(name, "zerodce", x)
    given = [t if name == "triton" else t.data_ptr() for t in (matrices, biases, *features)]
    module.zerodce_forward(
        *handles(x, out),
        tuple(out.shape),
        around,
        zeros,
        *given[:2],
        given[2:],
        *place,
    )
    return out


def _features(x: Tensor, layer: int, zeros: bool) -> Tensor:
    margin = 0 if zeros else LAYERS - layer
    height, width = (side + 2 * margin for side in x.shape[-2:])
    return torch.empty((x.shape[0], height, width, FEATURES), dtype=x.dtype, device=x.device)


_library = torch.library.Library("fastllie", "FRAGMENT")
_library.define(
    "zerodce_forward(Tensor x, Tensor[] weights, Tensor[] epilogues, str arithmetic, str padding,"
    " bool cropped) -> Tensor"
)
_library.impl("zerodce_forward", _forward, "CompositeExplicitAutograd")
torch.library.register_fake(
    "fastllie::zerodce_forward",
    lambda x, weights, epilogues, arithmetic, padding, cropped: empty_result(x, cropped),
    lib=_library,
)
_library.define(
    "zerodce_matrices_forward(Tensor x, Tensor matrices, Tensor biases, str padding, bool cropped,"
    " str backend) -> Tensor"
)
_library.impl("zerodce_matrices_forward", _matrices_forward, "CompositeExplicitAutograd")
torch.library.register_fake(
    "fastllie::zerodce_matrices_forward",
    lambda x, matrices, biases, padding, cropped, backend: empty_result(x, cropped),
    lib=_library,
)
