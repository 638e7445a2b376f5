"""The C library's heap, kept over the steps of a run."""

import ctypes
import platform

# of <malloc.h>
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
LARGEST = 2**31 - 1
PAD = 256 << 20


def keep_heap() -> bool:
    """Let this process keep the memory that it frees; returns whether its C library lets it (glibc).

    A training step on the CPU frees and takes the same large tensors over and over. By default each of them
    is mapped anew, and the kernel clears every page of it again: more than a third of a step of Zero-DCE. The
    price is that the process holds its largest size until it ends, so `fastllie train` does this for its own
    process, and `fastllie.train` leaves yours alone.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, LARGEST), (_TOP_PAD, PAD))
    return all(library.mallopt(name, value) == 1 for name, value in settings)
