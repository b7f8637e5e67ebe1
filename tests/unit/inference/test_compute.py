"""Training and generation take turns."""

import fcntl
import os
import threading
import time
from pathlib import Path

from services.inference.adapters import compute
from services.inference.adapters.compute import FileTurns
from tailor.compute_lock import ComputeLock


def test_generations_share_and_training_waits_for_them(tmp_path: Path) -> None:
    turns = FileTurns(tmp_path / "lock")
    training = os.open(tmp_path / "lock", os.O_RDWR)
    with turns.take(), turns.take():
        assert not _try(training)
    assert _try(training)
    fcntl.flock(training, fcntl.LOCK_UN)


def test_generation_waits_for_trainings_step(tmp_path: Path) -> None:
    turns = FileTurns(tmp_path / "lock")
    training = os.open(tmp_path / "lock", os.O_RDWR)
    assert _try(training)
    began = threading.Event()

    def generate() -> None:
        with turns.take():
            began.set()

    thread = threading.Thread(target=generate)
    thread.start()
    assert not began.wait(0.1)
    fcntl.flock(training, fcntl.LOCK_UN)
    assert began.wait(2)
    thread.join(2)


def test_unbroken_generation_lets_training_have_its_turn(tmp_path: Path) -> None:
    clock = [0.0]
    turns = FileTurns(tmp_path / "lock", now=lambda: clock[0])
    training = ComputeLock(tmp_path / "lock")
    first = turns.take()
    first.__enter__()
    clock[0] = compute.HOLD_SECONDS + 1
    order: list[str] = []

    def generate() -> None:
        with turns.take():
            order.append("generation")

    def train() -> None:
        training.acquire()
        order.append("training")
        training.release()

    threads = [threading.Thread(target=work) for work in (train, generate)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    assert order == []
    first.__exit__(None, None, None)
    for thread in threads:
        thread.join(5)
    assert order == ["training", "generation"]


def _try(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
