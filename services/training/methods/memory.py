"""A worker's memory at its peak."""

import os

from tailor.hardware import peak_resident_bytes


def peak_bytes() -> int:
    """Peak memory of the GPU's allocator if there is a GPU, else of this process; 0 if it is unknown."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return peak_resident_bytes(os.getpid())
