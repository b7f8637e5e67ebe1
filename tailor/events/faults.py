"""What does not work in this process now, by part. `/readyz` and `tailor status` show it, and the log says it once."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from tailor.errors import TailorError
from tailor.logging import get_logger
from tailor.telemetry import FAULTS

log = get_logger(__name__)

# An unchanged fault is logged again after this time.
REPEAT_SECONDS = 60.0


@dataclass(frozen=True)
class Fault:
    """One part, why it does not work, and what to do. A part that `waits` makes the process not ready; any other is a notice."""

    part: str
    reason: str
    message: str
    waits: bool = True


class Faults:
    """The current faults of a process. Thread-safe."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._faults: dict[str, tuple[Fault, float]] = {}

    def report(self, part: str, error: TailorError) -> None:
        """Set the fault of a part that waits. Logs it if it is new or was last logged a minute ago."""
        self._set(Fault(part, str(error.reason), error.message))

    def notice(self, part: str, error: TailorError) -> None:
        """Set a notice, which an operator should see although the process works."""
        self._set(Fault(part, str(error.reason), error.message, waits=False))

    def _set(self, fault: Fault) -> None:
        part, now = fault.part, self._now()
        with self._lock:
            known, logged_at = self._faults.get(part, (None, 0.0))
            is_new = known != fault or now - logged_at >= REPEAT_SECONDS
            self._faults[part] = (fault, now if is_new else logged_at)
        if known is not None and known.reason != fault.reason:
            _forget(known)
        FAULTS.labels(part, fault.reason).set(1)
        if is_new:
            title = "waiting" if fault.waits else "notice"
            log.warning(title, waiting_for=part, reason=fault.reason, message=fault.message)

    def clear(self, part: str) -> None:
        """Remove a part's fault, if it has one."""
        with self._lock:
            known, _ = self._faults.pop(part, (None, 0.0))
        if known is not None:
            _forget(known)
            log.info("works again", part=part, reason=known.reason)

    def all(self) -> Sequence[Fault]:
        """The faults, by part."""
        with self._lock:
            return [fault for _, (fault, _) in sorted(self._faults.items())]


def _forget(fault: Fault) -> None:
    """Remove a fault's series: parts come and go with specialists and topics."""
    with suppress(KeyError):
        FAULTS.remove(fault.part, fault.reason)
