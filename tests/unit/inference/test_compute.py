"""Training and generation share one machine."""

import fcntl
import os
import threading
from pathlib import Path

from services.inference.adapters.compute import HOLD_SECONDS, SharedCompute
from tailor.compute_lock import ComputeLock
from tests.waiting import wait_until


def test_generations_share_and_training_waits_for_them(tmp_path: Path) -> None:
    compute = SharedCompute(tmp_path / "lock")
    training = os.open(tmp_path / "lock", os.O_RDWR)
    with compute.hold(), compute.hold():
        assert not _try(training)
    assert _try(training)
    fcntl.flock(training, fcntl.LOCK_UN)


def test_generation_waits_for_a_training_step(tmp_path: Path) -> None:
    compute = SharedCompute(tmp_path / "lock")
    training = os.open(tmp_path / "lock", os.O_RDWR)
    assert _try(training)
    started = threading.Event()

    def generate() -> None:
        with compute.hold():
            started.set()

    thread = threading.Thread(target=generate)
    thread.start()
    assert not started.wait(0.1)
    fcntl.flock(training, fcntl.LOCK_UN)
    assert started.wait(60)
    thread.join(60)


def test_unbroken_generation_lets_training_hold_the_lock_in_between(tmp_path: Path) -> None:
    clock = [0.0]
    compute = SharedCompute(tmp_path / "lock", now=lambda: clock[0])
    training = ComputeLock(tmp_path / "lock")
    first = compute.hold()
    first.__enter__()
    clock[0] = HOLD_SECONDS + 1
    order: list[str] = []

    def generate() -> None:
        with compute.hold():
            order.append("generation")

    def train() -> None:
        training.acquire()
        order.append("training")
        training.release()

    threads = [threading.Thread(target=work) for work in (train, generate)]
    for thread in threads:
        thread.start()
    waiting = os.open(tmp_path / "lock.waiting", os.O_RDWR)

    def is_waited_for() -> bool:
        if not _try(waiting):
            return True
        fcntl.flock(waiting, fcntl.LOCK_UN)
        return False

    wait_until(is_waited_for)
    assert order == []
    first.__exit__(None, None, None)
    for thread in threads:
        thread.join(60)
    assert order == ["training", "generation"]


def _try(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
