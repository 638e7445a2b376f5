"""What each kernel asks of a GPU's memory, counted: see README.md."""

import re
from dataclasses import dataclass

import pytest
import torch

from cuda_on_cpu import build
from cuda_on_cpu.calls import CALLS, LAYOUTS, SIZE, Inputs

pytestmark = pytest.mark.emulated

DTYPES = {"float32": torch.float32, "float16": torch.float16}


@dataclass(frozen=True)
class Bounds:
    """Of an operator's launches together; where float16 costs more, of float32 and float16.

    Attributes:
        sectors: Of global memory, as a share of what the bytes that a warp asks for fill.
        traffic: Bytes moved, as a share of those of the arguments and results.
        conflicts: Turns of shared memory, as a share of what they would be without bank conflicts.
        barriers: Of a block.
        divergent: Share of the branches at which the lanes of a warp part.
        launches: How many there are.
    """

    sectors: float | tuple[float, float] = 1.05
    traffic: float | tuple[float, float] = 1.1
    conflicts: float = 1.1
    barriers: int = 0
    divergent: float = 0.01
    launches: int = 1


# Whoever passes the bounds above is not listed. What is listed is what there is today: a bound may be lowered
PLANAR = {
    # g++ jumps where a gradient passes a clamp or not; nvcc selects
    "illumination_backward": Bounds(divergent=0.1),
    "illuminate_backward": Bounds(divergent=0.1),
    # cells are mixed twice in 32 rows, by 24 lanes of a warp
    "gridcurve_forward": Bounds(barriers=4, divergent=0.0235),
    # and sums are added up
    "gridcurve_backward": Bounds(barriers=6, divergent=0.02),
    # for 32 x 32 pixels a block reads 36 x 36, in rows that begin 8 bytes before a sector does; what comes in
    # half the bytes touches as many sectors a row
    "smoothness_forward": Bounds((1.45, 1.97), (1.83, 2.5), barriers=2, divergent=0.025),
    "smoothness_forward_scalar": Bounds((1.45, 1.97), (1.84, 2.5), barriers=2, divergent=0.07),
    "smoothness_backward": Bounds((1.26, 1.55), (1.43, 1.77), barriers=1, divergent=0.025),
    "smoothness_backward_scalar": Bounds((1.26, 1.55), (1.43, 1.77), barriers=1, divergent=0.03),
    # the row above a warp, and the column beside it, a sector a row, are read again; cells of 4 x 4 are
    # written by lanes, and then they and the sums are added up
    "zero_reference_forward": Bounds(
        (1.31, 1.66), (1.47, 1.87), 1.13, barriers=1, divergent=0.055, launches=3
    ),
    # a warp writes 30 columns, so that few rows begin with a sector; border cells have fewer neighbours
    "zero_reference_backward": Bounds((1.15, 1.32), (1.38, 1.68), divergent=0.105),
    # this small image in strips of 120 columns and at most 10 rows, of which each block reads 128 and 16, and
    # its own once more; at the edges of the image, where warps part, g++ jumps more often
    "sci": Bounds((1.13, 1.24), (2.6, 3.2), barriers=2, divergent=0.031),
    # features go through memory between the layers, and each block of 8 x 32 pixels reads those of 10 x 34,
    # and of this small image all weights; where a tile is cut g++ jumps
    "zerodce": Bounds(1.06, 153, barriers=4, divergent=0.12, launches=7),
}
# Channels side by side. Where all tensors lie in one order, they are one long row
INTERLEAVED = {
    "illumination_backward": PLANAR["illumination_backward"],
    "illuminate_backward": PLANAR["illuminate_backward"],
    # of the maps' 24 channels three are read at a time; the sectors stay in the cache until the others are
    **dict.fromkeys(("curve_forward", "curve_forward_tanh"), Bounds((3.05, 5.4), (3.05, 5.4))),
    **dict.fromkeys(("curve_backward", "curve_backward_tanh"), Bounds((3.15, 5.6), (3.15, 5.6))),
    # a lane takes a pixel and reads its channels one after the other
    "gridcurve_forward": Bounds(2.75, 2.85, barriers=4, divergent=0.0235),
    "gridcurve_backward": Bounds(2.65, 2.8, barriers=6, divergent=0.02),
    "smoothness_forward": Bounds((3.2, 3.75), (4.05, 4.75), barriers=2, divergent=0.025),
    "smoothness_forward_scalar": Bounds((3.2, 3.75), (4.05, 4.75), barriers=2, divergent=0.07),
    "smoothness_backward": Bounds((3.15, 3.45), (3.55, 3.95), barriers=1, divergent=0.025),
    "smoothness_backward_scalar": Bounds((3.15, 3.45), (3.55, 3.95), barriers=1, divergent=0.03),
    "zero_reference_forward": Bounds((7.5, 14.4), (8.3, 16.3), 1.13, barriers=1, divergent=0.055, launches=3),
    "zero_reference_backward": Bounds((6.9, 12.7), (8.3, 16.1), divergent=0.105),
    "sci": Bounds((1.28, 1.6), (2.85, 3.4), barriers=2, divergent=0.031),
    "zerodce": PLANAR["zerodce"],
}
BOUNDS = {"planar": PLANAR, "interleaved": INTERLEAVED}
CASES = [
    pytest.param(name, dtype, layout, id=f"{name}-{dtype}-{layout}")
    for layout in LAYOUTS
    for name in CALLS
    for dtype in DTYPES
    if name != "zerodce" or dtype == "float16"
]


def of_dtype(bound, dtype):
    return bound if isinstance(bound, (int, float)) else bound[list(DTYPES).index(dtype)]


@pytest.mark.parametrize(("name", "dtype", "layout"), CASES)
def test_cuda_memory(cuda_on_cpu, name, dtype, layout):
    inputs = Inputs(DTYPES[dtype], LAYOUTS[layout], (1, 8, 64) if name == "zerodce" else SIZE)
    cuda_on_cpu.launches()
    cuda_on_cpu.meter(True)
    try:
        results = CALLS[name](inputs)
    finally:
        cuda_on_cpu.meter(False)
    launches = cuda_on_cpu.launches()
    arguments = sum(tensor.numel() * tensor.element_size() for tensor in (*inputs.used, *results))

    def share(space):
        sites = [site for launch in launches for site in launch.sites if site["space"] == space]
        return sum(site["cost"] for site in sites) / max(1, sum(site["ideal"] for site in sites))

    bounds = BOUNDS[layout].get(name, Bounds())
    assert len(launches) == bounds.launches
    for launch in launches:
        assert launch.misaligned == 0
        assert launch.races == []
        assert launch.barriers <= bounds.barriers
    assert share("global") <= of_dtype(bounds.sectors, dtype)
    assert sum(launch.traffic() for launch in launches) <= of_dtype(bounds.traffic, dtype) * arguments
    assert share("shared") <= bounds.conflicts
    branches = sum(launch.branches for launch in launches)
    assert sum(launch.divergent for launch in launches) <= bounds.divergent * branches


def test_every_kernel_is_known():
    """A new one has to get a call. The operator's tests alone run colours_kernel, a copy, and gridcurve's."""
    text = "".join(path.read_text() for path in (build.CSRC / "cuda").glob("*.cu"))
    kernels = set(re.findall(r"(\w+_kernel)\(", text))
    assert kernels == {
        "curve_forward_kernel", "curve_backward_kernel", "map_kernel", "forward_kernel", "backward_kernel",
        "sums_kernel", "losses_kernel", "colours_kernel", "gridcurve_forward_kernel",
        "gridcurve_backward_kernel", "sci_kernel", "zerodce_first_kernel", "zerodce_kernel",
    }  # fmt: skip
