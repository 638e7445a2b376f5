"""The emulated instructions of tensor cores, lane by lane as PTX's manual has them, and their product."""

import ctypes

import pytest
import torch

from cuda_on_cpu import build, emulated

LANES = range(32)
# of a lane's registers, pair by pair: rows and columns of the left, inputs and columns of the right
LEFT = [[[(lane // 4 + 8 * (i % 2), lane % 4 * 2 + e + 8 * (i // 2)) for e in (0, 1)] for i in range(4)]
        for lane in LANES]  # fmt: skip
RIGHT = [[[(lane % 4 * 2 + e + 8 * i, lane // 4) for e in (0, 1)] for i in range(2)] for lane in LANES]
SUMS = [[(lane // 4 + 8 * (i // 2), lane % 4 * 2 + i % 2) for i in range(4)] for lane in LANES]


@pytest.fixture(scope="module")
def products():
    if reason := emulated.absent():
        pytest.skip(reason)
    return emulated.Library(build.build("metered", sources=[build.HERE / "products.cu"]))


def taken(matrix, places):
    places = torch.tensor(places)
    return matrix[places[..., 0], places[..., 1]].contiguous()


def pointer(tensor):
    return ctypes.c_void_p(tensor.data_ptr())


def matrices(dtype, rows, columns, seed):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=random).to(dtype)


@pytest.mark.parametrize("seed", [0, 1], ids=["in order", "shuffled"])
def test_the_lanes_of_a_loaded_matrix(products, seed):
    matrix = matrices(torch.float16, 16, 16, seed)
    got = torch.zeros(32, 4, 2, dtype=torch.float16)
    products.seed(seed)
    products.library.run_loads(pointer(matrix), pointer(got))
    products.seed(0)
    (launch,) = products.launches()
    assert launch.kernel == "loads"
    assert torch.equal(got, taken(matrix, LEFT))


def test_a_loaded_matrix_is_one_request(products):
    matrix, got = matrices(torch.float16, 16, 16, 0), torch.zeros(32, 4, 2, dtype=torch.float16)
    products.launches()
    products.meter(True)
    products.library.run_loads(pointer(matrix), pointer(got))
    products.meter(False)
    (launch,) = products.launches()
    # of 512 bytes, in four turns, written by elements before
    (request,) = [site for site in launch.sites if site["space"] == "shared" and not site["write"]]
    assert (request["requests"], request["cost"], request["bytes"]) == (1, 4, 512)
    assert launch.races == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["f16", "bf16"])
def test_the_product(products, dtype):
    left, right, before = (
        matrices(dtype, 16, 16, 1),
        matrices(dtype, 16, 8, 2),
        matrices(torch.float32, 16, 8, 3),
    )
    sums, lefts, rights = taken(before, SUMS), taken(left, LEFT), taken(right, RIGHT)
    bfloat = ctypes.c_bool(dtype == torch.bfloat16)
    products.library.run_multiplies(bfloat, pointer(lefts), pointer(rights), pointer(sums))
    expected = before.double() + left.double() @ right.double()
    torch.testing.assert_close(sums.double(), taken(expected, SUMS), rtol=0, atol=1e-5)
