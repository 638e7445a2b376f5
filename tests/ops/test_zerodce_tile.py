"""What a block of the CUDA kernel of Zero-DCE's network does, done by the CPU: see zerodce_tile.cpp."""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from test_zerodce_kernel import exact, network, photograph

from fastllie.ops.zerodce import HALO, _pack_matrices

ROOT = Path(__file__).resolve().parents[2]
PADDINGS = ("replicate", "zeros")
TOLERANCE = 2e-6


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None or not (ROOT / "csrc").is_dir():
        pytest.skip("a C++ compiler or the sources are not here")
    library = tmp_path_factory.mktemp("tile") / "zerodce_tile.so"
    command = [compiler, "-std=c++17", "-O2", "-shared", "-fPIC", "-Wall", "-Werror"]
    # an index beyond its array ends the process
    command += ["-fsanitize=bounds", "-fsanitize-undefined-trap-on-error"]
    command += [f"-I{ROOT / 'csrc'}", str(Path(__file__).with_name("zerodce_tile.cpp")), "-o", str(library)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return ctypes.CDLL(str(library))


def enhanced(tiles, net, x, padding="replicate", cropped=False):
    """As fastllie.ops.zerodce calls the kernel, with float32 features, and NaN in all that is not written."""
    parameters = list(net.parameters())
    packed = _pack_matrices(parameters[::2], parameters[1::2], torch.float32)
    if cropped:
        x = x[..., HALO:-HALO, HALO:-HALO]
    out = torch.full_like(x, float("nan"))
    margins = [0 if padding == "zeros" else 7 - layer for layer in range(2, 6)]
    batch, _, height, width = x.shape
    features = [torch.full((batch, height + 2 * m, width + 2 * m, 32), float("nan")) for m in margins]
    features.append(features[-2])

    def numbers(values):
        return (ctypes.c_int64 * len(values))(*values)

    def pointer(tensor):
        return ctypes.c_void_p(tensor.data_ptr())

    tiles.zerodce_forward(
        pointer(x), numbers(x.stride()), pointer(out), numbers(out.stride()), numbers(x.shape),
        ctypes.c_int64(HALO if cropped else 0), ctypes.c_int(padding == "zeros"),
        pointer(packed.weights[0]), pointer(packed.epilogues[0]),
        (ctypes.c_void_p * 5)(*(feature.data_ptr() for feature in features)),
    )  # fmt: skip
    return out


# tiles are 8 x 32: less than one, exactly one, several, a last one that is cut
@pytest.mark.parametrize("size", [(1, 1, 1), (2, 5, 7), (1, 8, 32), (1, 19, 65), (2, 9, 33)], ids=str)
@pytest.mark.parametrize("padding", PADDINGS)
def test_the_network(tiles, padding, size):
    net, x = network(padding), photograph(*size)
    got = enhanced(tiles, net, x, padding)
    torch.testing.assert_close(got.double(), exact(net, x), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("size", [(1, 15, 15), (2, 24, 50)], ids=str)
def test_cropped(tiles, size):
    net, x = network(), photograph(*size)
    for layout in (torch.contiguous_format, torch.channels_last):
        got = enhanced(tiles, net, x.contiguous(memory_format=layout), cropped=True)
        torch.testing.assert_close(got.double(), exact(net, x, cropped=True), rtol=0, atol=TOLERANCE)


def test_nan_spreads_no_further_than_it_must(tiles):
    x = photograph(1, 20, 40)
    x[0, 1, 9, 20] = float("nan")
    got = enhanced(tiles, network(), x).isnan()
    assert bool(got[..., 2:17, 13:28].all())
    assert int(got.sum()) == 3 * 15 * 15


def test_what_lies_around_the_image_is_not_read(tiles):
    net, x = network(), photograph(1, 10, 12)
    framed = torch.full((1, 3, 30, 40), float("nan"))
    framed[..., 8:18, 9:21] = x
    for padding in PADDINGS:
        net = network(padding)
        got = enhanced(tiles, net, framed[..., 8:18, 9:21], padding)
        torch.testing.assert_close(got.double(), exact(net, x), rtol=0, atol=TOLERANCE)
