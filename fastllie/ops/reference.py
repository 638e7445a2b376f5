"""Every formula once, in plain PyTorch: the oracle of the tests and the backend named "torch"."""

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

ILLUM_MIN = 1e-4  # of SCI's published code

# SCI's 24 neighbours as 12 unordered pairs (dy, dx), in the published order
PAIRS = ((1, 0), (0, 1), (1, 1), (1, -1), (2, 0), (0, 2), (2, 1), (2, -1), (1, 2), (1, -2), (2, 2), (2, -2))
# SCI's conversion: rows R, G, B, columns Y, Cb, Cr; its 0.564 stands where BT.601 has 0.504
YCBCR = ((0.257, -0.148, 0.439), (0.564, -0.291, -0.368), (0.098, 0.439, -0.071))
YCBCR_BIAS = (16 / 255, 128 / 255, 128 / 255)


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


def zerodce(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], padding: str, cropped: bool = False
) -> Tensor:
    """Zero-DCE: eight steps of the curve with the maps of seven 3x3 convolutions with symmetric skips.

    Args:
        padding: "zeros" in every layer, or "replicate" the image once by the seven pixels that all need.
        cropped: `x` brings these seven pixels.
    """
    margin = 1 if padding == "zeros" else 0
    image = x if padding == "zeros" or cropped else F.pad(x, (7, 7, 7, 7), mode="replicate")
    features: list[Tensor] = []
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        given = features[-1] if features else image
        if layer > 3:
            given = torch.cat((_inner(features[6 - layer], given), given), 1)
        raw = F.conv2d(given, weight, bias, padding=margin)
        features.append(F.relu(raw) if layer < 6 else raw)
    return curve(_inner(x, features[-1]), features[-1], 8, True)


def _inner(x: Tensor, like: Tensor) -> Tensor:
    """The centre of `x` that `like` covers."""
    top, left = ((a - b) // 2 for a, b in zip(x.shape[-2:], like.shape[-2:], strict=True))
    return x[..., top : x.shape[-2] - top, left : x.shape[-1] - left]


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


def colours(guide: Tensor, color: str) -> Tensor:
    """The features whose distances are the weights': of each pixel, or of three values in memory order."""
    if color == "rgb":
        return guide
    matrix = guide.new_tensor(YCBCR)
    if color == "ycbcr":
        return torch.einsum("bihw,ij->bjhw", guide, matrix)
    # unlike components meet in a difference, so that the bias counts
    return (guide.reshape(-1, 3) @ matrix + guide.new_tensor(YCBCR_BIAS)).reshape(guide.shape)


def _colours_backward(grad: Tensor, color: str) -> Tensor:
    if color == "rgb":
        return grad
    matrix = grad.new_tensor(YCBCR)
    if color == "ycbcr":
        return torch.einsum("bjhw,ij->bihw", grad, matrix)
    return (grad.reshape(-1, 3) @ matrix.T).reshape(grad.shape)


def _ends(x: Tensor, dy: int, dx: int) -> tuple[Tensor, Tensor]:
    """Both pixels of every pair (p, p + (dy, dx)) inside the image."""
    height, width = x.shape[2:]
    first = x[:, :, : height - dy, max(-dx, 0) : width - max(dx, 0)]
    return first, x[:, :, dy:, max(dx, 0) : width + min(dx, 0)]


def _spread(pairs: Tensor, dy: int, dx: int) -> Tensor:
    """From values of the pairs to the pixels: added at the first one, subtracted at the second."""
    left, right = max(-dx, 0), max(dx, 0)
    return F.pad(pairs, (left, right, 0, dy)) - F.pad(pairs, (right, left, dy, 0))


def kappa(sigma: float) -> float:
    """The factor of the squared colour distance in the exponent of a weight."""
    return 0.5 / (sigma * sigma)


def smoothness(illum: Tensor, guide: Tensor, sigma: float, color: str, norm: str) -> Tensor:
    """SCI's smoothness of `illum`, weighted by the colour distances of `guide`; see `smoothness_loss`."""
    features = colours(guide, color)
    total = illum.new_zeros(())
    for dy, dx in PAIRS:
        p, q = _ends(features, dy, dx)
        weight = torch.exp(-kappa(sigma) * (p - q).square().sum(1, keepdim=True))
        p, q = _ends(illum, dy, dx)
        if norm == "pixel":
            total = total + 2 * (weight * (p - q).abs().sum(1, keepdim=True)).mean()
        else:
            total = total + 2 * weight.mean() * (p - q).abs().mean()
    return total


def smoothness_backward(
    grad: Tensor, illum: Tensor, guide: Tensor, sigma: float, color: str, norm: str
) -> tuple[Tensor, Tensor]:
    """Gradients of `smoothness`: |d| by its sign, a weight w by -2 kappa w times the colour difference."""
    factor = kappa(sigma)
    features = colours(guide, color)
    grad_illum, grad_features = torch.zeros_like(illum), torch.zeros_like(features)
    for dy, dx in PAIRS:
        p, q = _ends(features, dy, dx)
        apart = p - q
        weight = torch.exp(-factor * apart.square().sum(1, keepdim=True))
        p, q = _ends(illum, dy, dx)
        difference = p - q
        if norm == "pixel":
            slope = weight / weight.numel()
            height = slope * difference.abs().sum(1, keepdim=True)
        else:
            slope = weight.mean() / difference.numel()
            height = weight * difference.abs().mean() / weight.numel()
        grad_illum = grad_illum + _spread(2 * slope * difference.sign(), dy, dx)
        grad_features = grad_features + _spread(-4 * factor * height * apart, dy, dx)
    return grad * grad_illum, grad * _colours_backward(grad_features, color)


CELL, PATCH = 4, 16  # sides of Zero-DCE's regions of spatial consistency and of exposure


def zero_reference(
    x: Tensor, alpha: Tensor, steps: int, tanh: bool, level: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four losses of Zero-DCE on the maps and on the image that the curve makes with them (eq. 4-7)."""
    maps = torch.tanh(alpha) if tanh else alpha
    means = zero_reference_means(x, curve(x, maps, steps))
    batch, _, height, width = maps.shape
    vertical = maps.diff(dim=2).square().sum() / ((height - 1) * width)
    horizontal = maps.diff(dim=3).square().sum() / (height * (width - 1))
    return 2 * (vertical + horizontal) / batch, *losses_of_means(*means, level)


def zero_reference_means(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All that three of the losses see of `y`: how much brighter each cell is, the grey of each patch, and
    the means of the channels, `[B, H // 4, W // 4]`, `[B, H // 16, W // 16]` and `[B, 3]`.
    """
    cells = F.avg_pool2d((y - x).mean(1, keepdim=True), CELL)
    return cells[:, 0], F.avg_pool2d(y.mean(1, keepdim=True), PATCH)[:, 0], y.mean((2, 3))


def losses_of_means(
    cells: Tensor, patches: Tensor, means: Tensor, level: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Spatial consistency, colour constancy and exposure by the means that they are made of."""
    # row after row: a sum over all of a large tensor has an order that depends on the number of threads
    vertical, horizontal = ((step * weighted).sum(-1).sum() for step, weighted in _steps_between(cells))
    difference = (patches - level).square().sum(-1).sum()
    fourth, _ = _apart(means)
    return (vertical + horizontal) / cells.numel(), fourth.sqrt().mean(), difference / patches.numel()


def slopes_of_means(
    grad: Tensor, cells: Tensor, patches: Tensor, means: Tensor, level: float
) -> tuple[Tensor, Tensor]:
    """What the gradients of the four losses, `[4]`, become at each element of the image.

    Returns:
        For each cell what every element of `y` gets, and what every element of `x` gets at once,
        `[B, 2, H // 4, W // 4]`; and for each channel what its elements of `y` get besides, `[B, 3]`, times
        the number of pixels.
    """
    batch, rows, columns = cells.shape
    (_, vertical), (_, horizontal) = _steps_between(cells)
    spatial = grad[1] * -2 * (vertical.diff(dim=1) + horizontal.diff(dim=2)) / (cells.numel() * 3 * CELL**2)
    exposure = grad[3] * 2 * (patches - level) / (patches.numel() * 3 * PATCH**2)
    times = PATCH // CELL
    exposure = exposure.repeat_interleave(times, 1).repeat_interleave(times, 2)
    exposure = F.pad(exposure, (0, columns - exposure.shape[2], 0, rows - exposure.shape[1]))
    fourth, cubes = _apart(means)
    channels = grad[2] * 2 * cubes / (batch * torch.where(fourth == 0, 1.0, fourth).sqrt())[:, None]
    return torch.stack((spatial + exposure, -spatial), 1), channels


def zero_reference_backward(
    grad: Tensor, x: Tensor, alpha: Tensor, steps: int, tanh: bool, level: float
) -> tuple[Tensor, Tensor]:
    """Gradients of `zero_reference`; `grad`, `[4]`, are those of the losses."""
    maps = torch.tanh(alpha) if tanh else alpha
    means = zero_reference_means(x, curve(x, maps, steps))
    slopes, channels = slopes_of_means(grad, *means, level)
    batch, _, height, width = maps.shape
    pixels = slopes.repeat_interleave(CELL, 2).repeat_interleave(CELL, 3)
    pixels = F.pad(pixels, (0, width - pixels.shape[3], 0, height - pixels.shape[2]))
    grad_y = pixels[:, :1] + channels[..., None, None] / (height * width)
    grad_x, grad_maps = curve_backward(grad_y, x, maps, steps)
    for dim, ends in ((2, (0, 0, 1, 1)), (3, (1, 1))):
        pairs = batch * (maps.shape[dim] - 1) * maps.shape[5 - dim]
        grad_maps = grad_maps - grad[0] * (4 / pairs) * F.pad(maps.diff(dim=dim), ends).diff(dim=dim)
    if tanh:
        grad_maps = grad_maps * (1 - maps * maps)
    return grad_x + pixels[:, 1:], grad_maps


def _steps_between(cells: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Differences of vertical, then of horizontal neighbours, and these times how often each counts.

    As the published code, which pads with zeros: a cell at a border is compared with "unchanged" beyond it,
    once; two cells are compared from either side, twice.
    """
    pairs = []
    for dim, ends in ((1, (0, 0, 1, 1)), (2, (1, 1))):
        step = F.pad(cells, ends).diff(dim=dim)
        pairs.append((step, step + F.pad(step.narrow(dim, 1, cells.shape[dim] - 1), ends)))
    return pairs


def _apart(means: Tensor) -> tuple[Tensor, Tensor]:
    """Of each image the sum of the fourth powers of the differences of its channels' means, `[B]`, and a
    quarter of its derivatives, `[B, 3]`.
    """
    differences = means[:, :, None] - means[:, None, :]
    return differences.pow(4).sum((1, 2)) / 2, differences.pow(3).sum(2)


def apply_grid_curve(
    x: Tensor,
    grid: Tensor,
    guide: Tensor,
    *,
    place: tuple[int, int] = (0, 0),
    size: tuple[int, int] | None = None,
    steps: int = 8,
) -> Tensor:
    """Take black levels off and brighten by the quadratic curve, both looked up in a bilateral grid.

    Pixel (i, j) of a picture of `size` lies at the middle of its place in [0, 1]^2, as the cells of the grid
    do; its guide from 0 to 1 goes from the middle of the first luma to that of the last. Between the middles
    the six values alpha, black are linear, beyond the outer ones constant. Then for each channel

        y = clamp((x - black) / (1 - black), 0, 1),   `steps` times: y <- y + alpha * y * (1 - y).

    Args:
        x: Images, `[B, 3, H, W]` in [0, 1].
        grid: `[B, 6, lumas, rows, columns]`: alpha of the three channels in [-1, 1], then black, below 1.
        guide: `[B, 1, H, W]` in [0, 1].
        place: Row and column of the first pixel of `x` in its picture.
        size: Height and width of the picture; None where `x` is all of it.
        steps: At least 1.
    """
    values = torch.zeros((), dtype=x.dtype, device=x.device)
    for _, weight, _, at_luma in _lumas(x, grid, guide, place, size):
        values = values + weight * at_luma
    alpha, black = values[:, :3], values[:, 3:]
    return curve(((x - black) / (1 - black)).clamp(0, 1), alpha, steps)


def grid_curve_backward(
    grad: Tensor,
    x: Tensor,
    grid: Tensor,
    guide: Tensor,
    place: tuple[int, int],
    size: tuple[int, int] | None,
    steps: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `apply_grid_curve` with respect to x, grid and guide.

    They pass through the clamps where these are idle, the bounds included; a guide at the very middle of a
    luma belongs to the brighter side.
    """
    lumas = list(_lumas(x, grid, guide, place, size))
    values = torch.stack([weight * at_luma for _, weight, _, at_luma in lumas]).sum(0)
    alpha, black = values[:, :3], values[:, 3:]
    quotient = (x - black) / (1 - black)
    grad_y, grad_alpha = curve_backward(grad, quotient.clamp(0, 1), alpha, steps)
    grad_x = torch.where((quotient >= 0) & (quotient <= 1), grad_y / (1 - black), 0)
    grads = torch.cat([grad_alpha, grad_x * (quotient - 1)], 1)
    grad_grid = torch.stack([spread(weight * grads) for spread, weight, _, _ in lumas], 2)
    slopes = torch.stack([slope * at_luma for _, _, slope, at_luma in lumas]).sum(0)
    grad_guide = (grads * slopes).sum(1, keepdim=True) * (len(lumas) - 1)
    return grad_x, grad_grid, torch.where((guide >= 0) & (guide <= 1), grad_guide, 0)


def _lumas(
    x: Tensor, grid: Tensor, guide: Tensor, place: tuple[int, int], size: tuple[int, int] | None
) -> Iterator[tuple[Callable[[Tensor], Tensor], Tensor, Tensor, Tensor]]:
    """Of each luma of a grid: from pixels back to cells, the pixels' weights, how these grow, its values."""
    height, width = x.shape[-2:]
    whole = (height, width) if size is None else size
    lumas, rows, columns = grid.shape[2:]
    down = _hats(height, place[0], whole[0], rows, grid)
    across = _hats(width, place[1], whole[1], columns, grid)
    # of each row of pixels first: it is small
    stripes = down @ grid
    heights = guide.clamp(0, 1) * (lumas - 1)
    # not by distances from each luma: |x| has no slope at 0, which is where black pixels are
    first = heights.detach().floor().clamp(max=max(lumas - 2, 0))
    share = heights - first
    for luma in range(lumas):
        before, behind = (first == luma).to(x.dtype), (first == luma - 1).to(x.dtype)
        weight = before * (1 - share) + behind * share
        yield lambda pixels: down.T @ pixels @ across, weight, behind - before, stripes[:, :, luma] @ across.T


def _hats(count: int, start: int, whole: int, cells: int, like: Tensor) -> Tensor:
    """Weights `[count, cells]` of the cells for pixels from `start` on of a row of `whole`."""
    pixels = torch.arange(count, device=like.device, dtype=like.dtype) + (start + 0.5)
    places = (pixels * (cells / whole) - 0.5).clamp(0, cells - 1)
    return (1 - (places[:, None] - torch.arange(cells, device=like.device, dtype=like.dtype)).abs()).clamp(
        min=0
    )
