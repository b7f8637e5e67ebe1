"""A worker's memory: its peak, and what is given back."""

import gc
import os

from tailor.hardware import peak_resident_bytes


def peak_bytes() -> int:
    """Peak memory of the GPU's allocator if there is a GPU, else of this process; 0 if it is unknown."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return peak_resident_bytes(os.getpid())


def free_memory() -> None:
    """Give back the memory of what is no longer used. Trainer and model refer to each other, so that only the collector finds them."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
