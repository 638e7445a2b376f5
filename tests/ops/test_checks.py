"""What every operator refuses, and in which words."""

import pytest
import torch

from fastllie.ops import checks


@pytest.mark.parametrize("value", [True, 1.0, "1", None])
def test_what_is_no_integer(value):
    assert not checks.is_int(value)
    with pytest.raises(ValueError, match=rf"^n must be an integer >= 1, got {value!r}$"):
        checks.check_count("n", value)


def test_integers():
    assert checks.is_int(0)
    assert checks.is_int(2, least=2)
    assert not checks.is_int(1, least=2)
    checks.check_count("n", 3, least=3)
    with pytest.raises(ValueError, match=r"^n must be an integer >= 3, got 2$"):
        checks.check_count("n", 2, least=3)


def test_numbers():
    checks.check_number("n", 0)
    checks.check_number("n", 0.5)
    with pytest.raises(TypeError, match=r"^n must be a number, got bool$"):
        checks.check_number("n", False)
    with pytest.raises(TypeError, match=r"^n must be a number, got str$"):
        checks.check_number("n", "1")


def test_outputs():
    x = torch.zeros(1, 3, 4, 5)
    checks.check_out(torch.zeros(1, 3, 4, 5), x, x.shape)
    with pytest.raises(TypeError, match=r"out must be a torch.Tensor, got list"):
        checks.check_out([], x, x.shape)
    with pytest.raises(TypeError, match=r"out must be torch.float32, as x, got torch.float64"):
        checks.check_out(x.double(), x, x.shape)
    given = r"\[1, 3, 5, 4\] on cpu"
    with pytest.raises(ValueError, match=r"out must be \[1, 3, 4, 5\] on cpu, as x, got " + given):
        checks.check_out(x.mT.clone(), x, x.shape)
    with pytest.raises(ValueError, match=r"out must be .* on cpu, as x, got .* on meta"):
        checks.check_out(x.to("meta"), x, x.shape)
    with pytest.raises(ValueError, match=r"out is the memory of x"):
        checks.check_out(x.view(1, 3, 4, 5), x, x.shape)


def test_gradients_that_there_are_not():
    x = torch.zeros(1, requires_grad=True)
    with pytest.raises(
        RuntimeError, match=r"^f is for inference and has no gradient: call it under torch.no_grad\(\)$"
    ):
        checks.check_no_gradient("f", x.detach(), x)
    with torch.no_grad():
        checks.check_no_gradient("f", x)
