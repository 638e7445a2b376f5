"""What each kernel asks of a GPU's memory, counted: see README.md."""

from dataclasses import dataclass

import pytest
import torch

from cuda_on_cpu.calls import CALLS, LAYOUTS, SIZE, Inputs

pytestmark = pytest.mark.emulated

DTYPES = {"float32": torch.float32, "float16": torch.float16}


@dataclass(frozen=True)
class Bounds:
    """Of an operator's launches together.

    Attributes:
        sectors: Of global memory, as a share of what the bytes that a warp asks for fill.
        traffic: Bytes moved, as a share of those of the arguments and results.
        conflicts: Turns of shared memory, as a share of what they would be without bank conflicts.
        barriers: Of a block.
        divergent: Share of the branches at which the lanes of a warp part.
    """

    sectors: float = 1.05
    traffic: float = 1.1
    conflicts: float = 1.1
    barriers: int = 0
    divergent: float = 0.03


PLANAR: dict[str, Bounds] = {}
INTERLEAVED: dict[str, Bounds] = {}


def measured(emulator, name, dtype, layout):
    size = SIZE if name != "zerodce" else (1, 8, 64)
    inputs = Inputs(DTYPES[dtype], LAYOUTS[layout], size)
    emulator.launches()
    emulator.meter(True)
    try:
        results = CALLS[name](inputs)
    finally:
        emulator.meter(False)
    arguments = sum(tensor.numel() * tensor.element_size() for tensor in (*inputs.used, *results))
    return emulator.launches(), arguments


def cases():
    for layout in LAYOUTS:
        for name in CALLS:
            for dtype in DTYPES:
                if name != "zerodce" or dtype == "float16":
                    yield pytest.param(name, dtype, layout, id=f"{name}-{dtype}-{layout}")


@pytest.mark.parametrize(("name", "dtype", "layout"), cases())
def test_cuda_memory(cuda_on_cpu, name, dtype, layout):
    launches, arguments = measured(cuda_on_cpu, name, dtype, layout)
    assert launches
    sites = [site for launch in launches for site in launch.sites]

    def share(space):
        chosen = [site for site in sites if site["space"] == space]
        return sum(s["cost"] for s in chosen) / max(1, sum(s["ideal"] for s in chosen))

    print(f"FIG {layout} {name} {dtype} sectors {share('global'):.3f} traffic {sum(l.traffic() for l in launches)/arguments:.3f} conflicts {share('shared'):.3f} barriers {max(l.barriers for l in launches)} divergent {sum(l.divergent for l in launches)/sum(l.branches for l in launches):.4f} launches {len(launches)}")
    for launch in launches:
        assert launch.misaligned == 0
        assert launch.races == []
