"""Events that wait for one of another topic: set aside in the database, handled again each minute, and dead letters after an hour."""

import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from tailor.errors import NotYet, Reason, TailorError, Unavailable
from tailor.events.dead_letters import EventPlace, Letter, SqlDeadLetters
from tailor.events.envelope import Event
from tailor.events.faults import Faults
from tailor.logging import get_logger, place
from tailor.telemetry import EVENTS

log = get_logger(__name__)

RETRY_SECONDS = 60.0
PATIENCE = timedelta(hours=1)
AT_ONCE = 100


class ParkedEvents:
    """Handles a service's parked events again. A notice shows each. Handlers are idempotent, so replicas need not agree."""

    def __init__(
        self,
        letters: SqlDeadLetters,
        read: Callable[[EventPlace], Event],
        handlers: Mapping[str, Callable[[Event], None]],
        *,
        dead_letter: Callable[[Event, TailorError], None],
        faults: Faults,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._letters = letters
        self._read = read
        self._handlers = handlers
        self._dead_letter = dead_letter
        self._faults = faults
        self._now = now

    def run(self, stop: threading.Event) -> None:
        """Try at once, then every minute, until `stop` is set. Blocks."""
        while True:
            try:
                self.retry_all()
            except TailorError as error:
                log.warning("parked events not read", reason=error.reason)
            if stop.wait(RETRY_SECONDS):
                return

    def retry_all(self) -> None:
        """Handle each parked event. Raises Unavailable without the database."""
        for letter in self._letters.waiting(AT_ONCE):
            if letter.place.topic in self._handlers:
                self._retry(letter)

    def _retry(self, letter: Letter) -> None:
        part = part_of(letter.place)
        try:
            event = self._read(letter.place)
        except TailorError as error:
            if not error.retryable:
                self._dead_letter(
                    Event(letter.place.topic, "", None, {}, letter.place.partition, letter.place.offset, 0), error
                )
            return
        try:
            self._handlers[letter.place.topic](event)
        except NotYet as error:
            self._faults.notice(part, error)
            if self._now() - letter.create_time < PATIENCE:
                return
            self._dead_letter(event, error)
        except TailorError as error:
            if error.retryable:
                return
            self._dead_letter(event, error)
        except Exception as error:  # noqa: BLE001 - a defect stops one event only (docs/decisions/0045)
            at = place(error)
            log.error("handler failed", topic=event.topic, offset=event.offset, error=type(error).__name__, at=at)
            failed = Unavailable(Reason.HANDLER_FAILED, f"A defect: {type(error).__name__} at {at}. Report it.")
            self._dead_letter(event, failed)
        else:
            self._letters.mark_replayed(letter.place, "")
            EVENTS.labels(event.topic, "handled").inc()
        self._faults.clear(part)


def part_of(where: EventPlace) -> str:
    """The name of a parked event among the faults."""
    return f"{where.topic} {where.partition}/{where.offset}"
