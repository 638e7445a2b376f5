"""Every formula once, in plain PyTorch: the oracle of the tests and the backend named "torch"."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

ILLUM_MIN = 1e-4  # of SCI's published code


def curve(x: Tensor, alpha: Tensor, steps: int, tanh: bool = False) -> Tensor:
    """LE(x) = x + alpha * x * (1 - x), `steps` times (Zero-DCE, eq. 3); `tanh` makes alpha of raw outputs."""
    if tanh:
        alpha = torch.tanh(alpha)
    for a in _steps(x, alpha, steps):
        x = x + a * (x - x * x)
    return x


def _steps(x: Tensor, maps: Tensor, steps: int) -> Sequence[Tensor]:
    """The map of each step: consecutive ones, or the shared one."""
    channels = x.shape[1]
    return [maps] * steps if maps.shape[1] == channels else maps.split(channels, 1)


def curve_backward(
    grad: Tensor, x: Tensor, alpha: Tensor, steps: int, tanh: bool = False
) -> tuple[Tensor, Tensor]:
    """Gradients of `curve`, from the last step back: d/da = g x (1 - x), d/dx = g (1 + a (1 - 2x))."""
    maps = torch.tanh(alpha) if tanh else alpha
    a = _steps(x, maps, steps)
    states = [x]
    for k in range(steps - 1):
        states.append(states[k] + a[k] * (states[k] - states[k] * states[k]))
    grad_maps = []
    for k in reversed(range(steps)):
        state = states[k]
        grad_maps.append(grad * (state - state * state))
        grad = grad * (1 + a[k] * (1 - 2 * state))
    grad_maps.reverse()
    grad_alpha = torch.stack(grad_maps).sum(0) if alpha.shape[1] == x.shape[1] else torch.cat(grad_maps, 1)
    if tanh:
        grad_alpha = grad_alpha * (1 - maps * maps)
    return grad, grad_alpha


def divide_illumination(x: Tensor, illum: Tensor) -> Tensor:
    """The enhanced image clamp(x / illum, 0, 1)  (SCI, Retinex)."""
    return (x / illum).clamp(0, 1)


def illuminate(raw: Tensor, v: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """illum = clamp(sigmoid(raw) + v, 1e-4, 1) and the image divided by it, clamp(y / illum, 0, 1)."""
    illum = (torch.sigmoid(raw) + v).clamp(ILLUM_MIN, 1)
    return illum, divide_illumination(y, illum)


def divide_backward(grad: Tensor, x: Tensor, illum: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of `divide_illumination`; they pass where 0 <= x / illum <= 1, the bounds included."""
    quotient = x / illum
    idle = (quotient >= 0) & (quotient <= 1)
    grad_x = torch.where(idle, grad / illum, 0)
    return grad_x, torch.where(idle, -grad_x * quotient, 0)


def illuminate_backward(
    grad_illum: Tensor, grad_out: Tensor, raw: Tensor, v: Tensor, y: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `illuminate` with respect to raw, v and y; through the clamp as in `divide_backward`."""
    sigmoid = torch.sigmoid(raw)
    total = sigmoid + v
    grad_y, through = divide_backward(grad_out, y, total.clamp(ILLUM_MIN, 1))
    idle = (total >= ILLUM_MIN) & (total <= 1)
    grad_v = torch.where(idle, grad_illum + through, 0)
    return grad_v * sigmoid * (1 - sigmoid), grad_v, grad_y


def sci(x: Tensor, weights: Tensor, biases: Tensor, residual: bool, padding: str) -> Tensor:
    """SCI's enhancement network and the division by its illumination, layer after layer."""
    f = torch.relu(_convolve(x, weights[0], biases[0], padding))
    hidden = torch.relu(_convolve(f, weights[1], biases[1], padding))
    raw = _convolve(f + hidden if residual else hidden, weights[2], biases[2], padding)
    return illuminate(raw, x, x)[1]


def _convolve(f: Tensor, weight: Tensor, bias: Tensor, padding: str) -> Tensor:
    """A 3 x 3 convolution of the size of `f`; a side of one pixel has no mirror image: it is replicated."""
    if padding == "zeros":
        return F.conv2d(f, weight, bias, padding=1)
    for dim, around in ((3, (1, 1, 0, 0)), (2, (0, 0, 1, 1))):
        f = F.pad(f, around, mode="reflect" if f.shape[dim] > 1 else "replicate")
    return F.conv2d(f, weight, bias)
