"""The device that runs train on: as the settings describe it, completed by what this machine has."""

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from services.training.settings import Settings
from tailor.hardware import name_cores

CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
MEASURED_SECONDS = 0.2
MATRIX_SIZE = 1024
# Speed of a data-centre GPU in bf16, if the settings do not say.
GPU_TERAFLOPS = 300.0
# Share of a large matrix product's speed that training reaches, where its steps are not timed.
EFFICIENCY_CPU, EFFICIENCY_GPU = 0.6, 0.35


@dataclass(frozen=True)
class Device:
    """The device that a run would train on. `here` means this machine, where empty fields are detected.

    `memory_bytes` 0 means unknown: then nothing is refused for lack of memory. `teraflops` is the speed of a large matrix product, in
    TFLOP/s, or 0 if the settings do not say.
    """

    name: str
    count: int
    memory_bytes: int
    teraflops: float
    gpu: bool
    here: bool

    @classmethod
    def from_settings(cls, settings: Settings) -> "Device":
        """The device as the settings describe it."""
        here = settings.launcher == "subprocess"
        count = settings.devices or (1 if here else settings.kubernetes_nodes * max(1, settings.kubernetes_gpus))
        gpu = not here and settings.kubernetes_gpus > 0
        name = settings.device_name or ("" if here else f"{count} x {'GPU' if gpu else 'CPU node'}")
        memory_bytes = round(settings.device_memory_gib * 2**30)
        return cls(name, count, memory_bytes, settings.device_teraflops, gpu=gpu, here=here)


def complete_device(device: Device) -> Device:
    """Fill in an empty name and memory with what this machine has."""
    detected = _detect() if device.here else device
    return replace(
        detected,
        name=device.name or detected.name,
        memory_bytes=device.memory_bytes or detected.memory_bytes,
        teraflops=device.teraflops,
    )


def training_teraflops(device: Device) -> float:
    """TFLOP/s that training reaches, from the speed of a matrix product: as set, typical of GPUs elsewhere, or measured here."""
    typical = GPU_TERAFLOPS if device.gpu and not device.here else 0.0
    product = device.teraflops or typical or _measure_teraflops(gpu=device.gpu)
    return product * (EFFICIENCY_GPU if device.gpu else EFFICIENCY_CPU)


def _detect() -> Device:
    import torch

    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        return Device(f"1 x {properties.name}", 1, properties.total_memory, 0.0, gpu=True, here=True)
    return Device(name_cores(), 1, memory_limit(), 0.0, gpu=False, here=True)


def memory_limit(limits: tuple[Path, ...] = CGROUP_LIMITS) -> int:
    """Bytes of the machine's memory, or of this process's cgroup limit if that is lower."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    texts = [path.read_text(encoding="ascii").strip() for path in limits if path.exists()]
    return min([total, *(int(text) for text in texts if text.isdigit())])


def _measure_teraflops(*, gpu: bool) -> float:
    """TFLOP/s of the fastest matrix product here, in the precision that this machine trains in: others may use it meanwhile."""
    import torch

    from tailor.hardware import computes_in_bf16

    options: dict[str, Any] = {"dtype": torch.bfloat16 if computes_in_bf16() else torch.float32}
    if gpu:
        options["device"] = "cuda"
    size = MATRIX_SIZE * 8 if gpu else MATRIX_SIZE
    matrix = torch.ones(size, size, **options)
    _multiply(matrix, gpu=gpu)
    started, shortest = time.perf_counter(), float("inf")
    while (began := time.perf_counter()) - started < MEASURED_SECONDS:
        _multiply(matrix, gpu=gpu)
        shortest = min(shortest, time.perf_counter() - began)
    return 2 * size**3 / shortest / 1e12


def _multiply(matrix: Any, *, gpu: bool) -> None:
    import torch

    torch.mm(matrix, matrix)
    if gpu:
        torch.cuda.synchronize()
