"""How much a piece of layer-by-layer work may hold at once, on the device where it runs."""

from torch import Tensor

# A CPU's cache, or enough work to fill an accelerator
CPU_BYTES, ACCELERATOR_BYTES = 12 << 20, 512 << 20


def bytes_at_once(x: Tensor) -> int:
    """Bytes that a strip of features and its result may take, on the device of `x`."""
    return CPU_BYTES if x.is_cpu else ACCELERATOR_BYTES
