"""The emulator finds the faults that it is for, and nothing else."""

import ctypes

import numpy as np
import pytest

from cuda_on_cpu import build, emulated

THREADS = 64
RACES = {"reads_a_neighbour", "reads_in_its_warp", "writes_what_a_warp_reads", "blocks_share_an_element"}
FAILURES = {
    "waits_in_a_branch": "threads wait for others",
    "waits_at_two_places": "wait at different barriers: lines",
    "shuffles_with_half_a_warp": "threads wait for others",
    "does_not_wait_for_a_copy": "ends before its copies have arrived",
}
COUNTED = {"reads_with_gaps", "meets_at_a_bank", "parts_at_a_branch", "reads_a_pack_askew"}


@pytest.fixture(scope="module")
def faults():
    if reason := emulated.absent():
        pytest.skip(reason)
    return emulated.Library(build.build("metered", sources=[build.HERE / "faults.cu"]))


def run(faults, name, right):
    """The launch's error, what is known of it, and the data."""
    # whole sectors, and none that is not asked for
    held = np.arange(THREADS * 9 + 8, dtype=np.float32)
    data = held[-held.ctypes.data % 32 // 4 :][: THREADS * 9]
    faults.library.run_fault.restype = ctypes.c_char_p
    faults.launches()
    faults.meter(True)
    error = faults.library.run_fault(
        name.encode(), int(right), data.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    )
    faults.meter(False)
    (launch,) = faults.launches()
    return error.decode(), launch, data


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", sorted(RACES | set(FAILURES) | COUNTED | {"reads_what_nobody_wrote"}))
def test_what_is_right_is_left_alone(faults, name, seed):
    faults.seed(seed)
    error, launch, data = run(faults, name, True)
    faults.seed(0)
    assert error == "no error"
    assert launch.races == []
    assert launch.misaligned == 0
    # where one thread alone has something to do
    assert launch.divergent <= (2 if name in ("blocks_share_an_element", "writes_what_a_warp_reads") else 0)
    assert launch.sectors() == 1
    assert launch.conflicts() in (0, 1)
    assert not np.isnan(data).any()


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", sorted(RACES))
def test_races(faults, name, seed):
    """Whatever the order that the threads ran in."""
    faults.seed(seed)
    _, launch, _ = run(faults, name, False)
    faults.seed(0)
    assert launch.races


@pytest.mark.parametrize("name", sorted(FAILURES))
def test_launches_that_would_hang_or_be_undefined(faults, name):
    error, _, _ = run(faults, name, False)
    assert error.startswith("launch failure: ")
    assert FAILURES[name] in error


def test_shared_memory_begins_as_no_number(faults):
    _, _, data = run(faults, "reads_what_nobody_wrote", False)
    assert np.flatnonzero(np.isnan(data)).tolist() == [7]


def test_the_counts(faults):
    _, launch, _ = run(faults, "reads_with_gaps", False)
    assert launch.sectors(write=False) == 8
    assert launch.sectors(write=True) == 1
    assert launch.traffic() == (2 * 32 + 2 * 4) * 32
    assert launch.barriers == 0
    _, launch, _ = run(faults, "meets_at_a_bank", False)
    assert launch.conflicts() == 32
    _, launch, _ = run(faults, "parts_at_a_branch", False)
    assert launch.divergent == 2
    _, launch, _ = run(faults, "reads_a_pack_askew", False)
    assert launch.misaligned == THREADS
    _, launch, _ = run(faults, "writes_what_a_warp_reads", True)
    assert launch.barriers == 2
    assert launch.static_shared == THREADS * 4


@pytest.mark.parametrize(("threads", "shared"), [(0, 0), (1025, 0), (32, 49 << 10)])
def test_launches_that_no_device_takes(faults, threads, shared):
    faults.library.run_too_much.restype = ctypes.c_char_p
    assert faults.library.run_too_much(threads, shared).startswith(b"launch failure: ")
