"""How much of the device's time each answer used."""

import threading
import time
from collections.abc import Callable


class ComputeMeter:
    """Splits the time in which a device computes between the answers that it computes at the same time. Thread-safe.

    Every moment is split equally, as in processor sharing: of two answers that run together for 4 s, each uses 2 s. So the shares of all
    answers add up to the time in which at least one was computed.
    """

    def __init__(self, device: str, now: Callable[[], float] = time.monotonic) -> None:
        self.device = device
        self._now = now
        self._lock = threading.Lock()
        self._running = 0
        self._moment = 0.0
        # The seconds that an answer would have used if it had run all the time.
        self._share = 0.0

    def start(self) -> "ComputeShare":
        """Begin to count an answer."""
        with self._lock:
            share = self._advance()
            self._running += 1
        return ComputeShare(self, share)

    def end(self, start: float) -> float:
        """Stop counting an answer; returns the seconds that it used since the share at its start."""
        with self._lock:
            share = self._advance()
            self._running -= 1
        return share - start

    def _advance(self) -> float:
        moment = self._now()
        if self._running:
            self._share += (moment - self._moment) / self._running
        self._moment = moment
        return self._share


class ComputeShare:
    """The device time of one answer. `seconds` are 0 until it ends."""

    def __init__(self, meter: ComputeMeter, start: float) -> None:
        self.device = meter.device
        self.seconds = 0.0
        self._meter = meter
        self._start = start
        self._lock = threading.Lock()
        self._ended = False

    def end(self) -> None:
        """Stop counting. Idempotent and thread-safe."""
        with self._lock:
            if not self._ended:
                self._ended = True
                self.seconds = self._meter.end(self._start)
