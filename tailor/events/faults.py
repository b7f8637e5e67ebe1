"""What does not work in this process now, by part. `/readyz` and `tailor status` show it, and the log says it once."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from tailor.errors import Reason, TailorError
from tailor.logging import get_logger
from tailor.telemetry import FAULTS

log = get_logger(__name__)

# An unchanged fault is logged again after this time.
REPEAT_SECONDS = 60.0
# A connection that is back within this time was no fault: brokers close idle connections, and a busy machine answers late.
PASSING_SECONDS = 5.0
MAY_PASS = frozenset({str(Reason.KAFKA_UNAVAILABLE)})


@dataclass(frozen=True)
class Fault:
    """One part, why it does not work, and what to do. A part that `waits` makes the process not ready; any other is a notice."""

    part: str
    reason: str
    message: str
    waits: bool = True


@dataclass
class _Known:
    """A reported fault, since when its part has had one, and when this one was last logged, if it was."""

    fault: Fault
    since: float
    logged_at: float | None = None

    def counts(self, now: float) -> bool:
        """False while it may still pass."""
        return self.fault.reason not in MAY_PASS or now - self.since >= PASSING_SECONDS


class Faults:
    """The current faults of a process. Thread-safe."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._faults: dict[str, _Known] = {}

    def report(self, part: str, error: TailorError) -> None:
        """Set the fault of a part that waits. Logs it if it is new or was last logged a minute ago.

        A lost connection counts once it has lasted for PASSING_SECONDS.
        """
        self._set(Fault(part, str(error.reason), error.message))

    def notice(self, part: str, error: TailorError) -> None:
        """Set a notice, which an operator should see although the process works."""
        self._set(Fault(part, str(error.reason), error.message, waits=False))

    def _set(self, fault: Fault) -> None:
        part, now = fault.part, self._now()
        with self._lock:
            before = self._faults.get(part)
            is_same = before is not None and before.fault.reason == fault.reason
            known = _Known(fault, before.since if before else now, before.logged_at if before and is_same else None)
            self._faults[part] = known
            counts = known.counts(now)
            is_due = known.logged_at is None or now - known.logged_at >= REPEAT_SECONDS
            is_new = counts and (is_due or before is None or before.fault != fault)
            if is_new:
                known.logged_at = now
        if before is not None and not is_same:
            _forget(before.fault)
        if counts:
            FAULTS.labels(part, fault.reason).set(1)
        if is_new:
            title = "waiting" if fault.waits else "notice"
            log.warning(title, waiting_for=part, reason=fault.reason, message=fault.message)

    def clear(self, part: str) -> None:
        """Remove a part's fault, if it has one."""
        with self._lock:
            known = self._faults.pop(part, None)
        if known is not None and known.logged_at is not None:
            _forget(known.fault)
            log.info("works again", part=part, reason=known.fault.reason)

    def all(self) -> Sequence[Fault]:
        """The faults that count, by part."""
        with self._lock:
            now = self._now()
            return [known.fault for _, known in sorted(self._faults.items()) if known.counts(now)]


def _forget(fault: Fault) -> None:
    """Remove a fault's series: parts come and go with specialists and topics."""
    with suppress(KeyError):
        FAULTS.remove(fault.part, fault.reason)
