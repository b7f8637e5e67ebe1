"""Capabilities of this machine, and what processes use of it. Torch is loaded by the call, not by the import."""

import os
from pathlib import Path


def computes_in_bf16() -> bool:
    """True if the processor that runs models multiplies bf16 matrices in hardware.

    An x86 processor without AVX-512 or an older GPU emulates bf16, many times slower than f32.
    """
    import torch

    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def name_cores() -> str:
    """The processor as a device, such as `2 CPU cores`: those that this process may use."""
    cores = len(os.sched_getaffinity(0))
    return f"{cores} CPU core{'s' * (cores > 1)}"


def peak_resident_bytes(process_id: int) -> int:
    """The largest resident memory of a process until now; 0 if it is unknown, or if the process has ended. Linux only."""
    # Not `ru_maxrss`: it starts with the parent's memory at the time of the fork.
    try:
        lines = Path(f"/proc/{process_id}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)
