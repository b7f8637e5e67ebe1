"""A fair lock between processes."""

import fcntl
import signal
import subprocess
import sys
import threading
from pathlib import Path

from tailor.compute_lock import ComputeLock
from tests.waiting import wait_until

HOLDER = """
import sys, time
from pathlib import Path
from tailor.compute_lock import ComputeLock
print("here", flush=True)
lock = ComputeLock(Path(sys.argv[1]))
lock.acquire()
print("acquired", flush=True)
time.sleep(60)
"""


class Waiter:
    """Acquires a lock in a thread. `has_it` is set once the lock is held."""

    def __init__(self, path: Path, *, shared: bool = False) -> None:
        self._lock = ComputeLock(path)
        self.has_it = threading.Event()
        self._thread = threading.Thread(target=self._acquire, args=(shared,), daemon=True)
        self._thread.start()

    def _acquire(self, shared: bool) -> None:
        self._lock.acquire(shared=shared)
        self.has_it.set()

    def release(self) -> None:
        self._thread.join(60)
        self._lock.release()


def _wait_for_waiter(path: Path) -> None:
    def is_locked() -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(file, fcntl.LOCK_UN)
        return False

    with path.open("rb") as file:
        wait_until(is_locked, description="a process that waits for the lock")


def test_is_shared_by_many_or_held_by_one(tmp_path: Path) -> None:
    first, second = ComputeLock(tmp_path / "lock"), ComputeLock(tmp_path / "lock")
    first.acquire(shared=True)
    second.acquire(shared=True)
    exclusive = Waiter(tmp_path / "lock")
    assert not exclusive.has_it.wait(0.1)
    first.release()
    assert not exclusive.has_it.is_set()
    second.release()
    assert exclusive.has_it.wait(60)
    reader = Waiter(tmp_path / "lock", shared=True)
    assert not reader.has_it.wait(0.1)
    exclusive.release()
    assert reader.has_it.wait(60)


def test_a_waiter_goes_before_a_holder_that_acquires_it_again(tmp_path: Path) -> None:
    lock = ComputeLock(tmp_path / "lock")
    for shared in (True, False) * 20:
        lock.acquire()
        waiting = Waiter(tmp_path / "lock", shared=shared)
        _wait_for_waiter(tmp_path / "lock.waiting")
        lock.release()
        again = Waiter(tmp_path / "lock")
        assert waiting.has_it.wait(60) and not again.has_it.is_set()
        waiting.release()
        assert again.has_it.wait(60)
        again.release()


def test_a_suspended_waiter_does_not_block_release(tmp_path: Path) -> None:
    lock = ComputeLock(tmp_path / "lock")
    lock.acquire()
    stopped = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "lock")], stdout=subprocess.PIPE)
    assert stopped.stdout is not None and stopped.stdout.readline() == b"here\n"
    _wait_for_waiter(tmp_path / "lock.waiting")
    stopped.send_signal(signal.SIGSTOP)
    releasing = threading.Thread(target=lock.release, daemon=True)
    releasing.start()
    releasing.join(60)
    assert not releasing.is_alive()
    stopped.kill()
    stopped.wait()
    stopped.stdout.close()


def test_a_killed_holder_releases_the_lock(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "lock")], stdout=subprocess.PIPE)
    assert holder.stdout is not None and [holder.stdout.readline() for _ in range(2)] == [b"here\n", b"acquired\n"]
    waiting = Waiter(tmp_path / "lock")
    assert not waiting.has_it.wait(0.1)
    holder.kill()
    holder.wait()
    holder.stdout.close()
    assert waiting.has_it.wait(60)
