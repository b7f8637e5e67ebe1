"""The device that runs train on: as the settings name it, else what is found here."""

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
MEASURED_SECONDS = 0.2
MATRIX = 1024
# What a data-centre GPU does in bf16, where nobody said what it is.
GPU_TERAFLOPS = 300.0


@dataclass(frozen=True)
class Device:
    """Where a run would train. `here` is this machine, of which the rest is found where it is empty. 0 bytes are not known, and nothing is
    refused for them."""

    name: str
    count: int
    memory_bytes: int
    teraflops: float
    gpu: bool
    here: bool


def find(named: Device) -> Device:
    """What the settings say of the device, completed by what this machine has or, for a device elsewhere, by what is usual."""
    found = _found() if named.here else named
    usual = GPU_TERAFLOPS if named.gpu and not named.here else 0.0
    return replace(
        found,
        name=named.name or found.name,
        memory_bytes=named.memory_bytes or found.memory_bytes,
        teraflops=named.teraflops or usual or _measured_teraflops(gpu=found.gpu),
    )


def _found() -> Device:
    import torch

    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        return Device(f"1 x {properties.name}", 1, properties.total_memory, 0.0, gpu=True, here=True)
    cores = len(os.sched_getaffinity(0))
    return Device(f"{cores} CPU core{'s' * (cores > 1)}", 1, memory_limit(), 0.0, gpu=False, here=True)


def memory_limit(limits: tuple[Path, ...] = CGROUP_LIMITS) -> int:
    """The machine's memory, or what this process's group may have of it."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = [path.read_text(encoding="ascii").strip() for path in limits if path.exists()]
    return min([total, *(int(text) for text in found if text.isdigit())])


def _measured_teraflops(*, gpu: bool) -> float:
    """What a matrix product reaches here, in the precision that this machine trains in."""
    import torch

    from tailor.hardware import computes_in_bf16

    options: dict[str, Any] = {"dtype": torch.bfloat16 if computes_in_bf16() else torch.float32}
    if gpu:
        options["device"] = "cuda"
    size = MATRIX * 8 if gpu else MATRIX
    one = torch.ones(size, size, **options)
    _multiply(one, gpu=gpu)
    started, products = time.perf_counter(), 0
    while time.perf_counter() - started < MEASURED_SECONDS:
        _multiply(one, gpu=gpu)
        products += 1
    return 2 * size**3 * products / (time.perf_counter() - started) / 1e12


def _multiply(one: Any, *, gpu: bool) -> None:
    import torch

    torch.mm(one, one)
    if gpu:
        torch.cuda.synchronize()
