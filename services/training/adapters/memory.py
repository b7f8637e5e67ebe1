"""The most memory that a worker has held at once."""

import resource


def peak_bytes() -> int:
    """Of the GPU where one trains, else of this process since it began."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
