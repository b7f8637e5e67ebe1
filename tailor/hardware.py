"""Capabilities of this machine, and the memory that processes use of it. Torch is loaded by the call, not by the import."""

import ctypes
import os
import sys
from pathlib import Path

# Parameters of glibc's mallopt, and its value for "never".
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
NEVER = -1
TOP_PAD_BYTES = 64 * 1024 * 1024
# Turns of a loop in which a thread of GNU's OpenMP waits before it sleeps; its default is 300,000. One that sleeps early comes too late for
# the next small product, and one that turns for long keeps the core that another thread lacks (decision 63 has figures).
SPINS = 5_000


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


def share_cores() -> None:
    """Let threads that compute together sleep soon if one of them has no core. Child processes inherit it.

    Call it before torch is loaded. By default a thread waits for the others for milliseconds without giving its core away, which costs
    nothing on an idle machine. If two other programs are busy, it takes the core from the very thread that it waits for: steps of 128
    tokens then had 0.36 of the pace that their share of the processor allows.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))


def keep_freed_memory() -> None:
    """Let glibc keep the memory that this process frees; does nothing with another C library.

    On a CPU a step frees as much as it allocates. If glibc returned it to the kernel, the kernel would have to zero every page again
    for the next step: 8 % of a step of training, as measured.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, NEVER)
        libc.mallopt(M_TOP_PAD, TOP_PAD_BYTES)
