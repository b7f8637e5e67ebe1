"""A worker's memory: its peak, and reusing what it frees for the next step."""

import ctypes
import os
import sys

from tailor.hardware import peak_resident_bytes

# Parameters of glibc's mallopt, and its value for "never".
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
NEVER = -1
TOP_PAD_BYTES = 64 * 1024 * 1024


def keep_freed_memory() -> None:
    """Let glibc keep the memory that this process frees; does nothing with another C library.

    On a CPU a step frees as much as it allocates. If glibc returned it to the kernel, the kernel would have to zero every page again
    for the next step: about 8 % of a step's time.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, NEVER)
        libc.mallopt(M_TOP_PAD, TOP_PAD_BYTES)


def peak_bytes() -> int:
    """Peak memory of the GPU's allocator if there is a GPU, else of this process; 0 if it is unknown."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return peak_resident_bytes(os.getpid())
