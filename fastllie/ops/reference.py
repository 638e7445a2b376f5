"""Every formula once, in plain PyTorch: the oracle of the tests and the backend named "torch"."""

import torch
from torch import Tensor


def curve(x: Tensor, alpha: Tensor, steps: int, tanh: bool = False) -> Tensor:
    """LE(x) = x + alpha * x * (1 - x), `steps` times (Zero-DCE, eq. 3); `tanh` makes alpha of raw outputs."""
    if tanh:
        alpha = torch.tanh(alpha)
    channels = x.shape[1]
    shared = alpha.shape[1] == channels
    for k in range(steps):
        a = alpha if shared else alpha[:, k * channels : (k + 1) * channels]
        x = x + a * (x - x * x)
    return x


def curve_backward(
    grad: Tensor, x: Tensor, alpha: Tensor, steps: int, tanh: bool = False
) -> tuple[Tensor, Tensor]:
    """Gradients of `curve`, from the last step back: d/da = g x (1 - x), d/dx = g (1 + a (1 - 2x))."""
    maps = torch.tanh(alpha) if tanh else alpha
    channels = x.shape[1]
    shared = alpha.shape[1] == channels
    a = [maps if shared else maps[:, k * channels : (k + 1) * channels] for k in range(steps)]
    states = [x]
    for k in range(steps - 1):
        states.append(states[k] + a[k] * (states[k] - states[k] * states[k]))
    grad_maps = []
    for k in reversed(range(steps)):
        state = states[k]
        grad_maps.append(grad * (state - state * state))
        grad = grad * (1 + a[k] * (1 - 2 * state))
    grad_maps.reverse()
    grad_alpha = torch.stack(grad_maps).sum(0) if shared else torch.cat(grad_maps, 1)
    if tanh:
        grad_alpha = grad_alpha * (1 - maps * maps)
    return grad, grad_alpha
