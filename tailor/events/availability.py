"""Which topics a consumer can read now. A topic that is missing or forbidden holds up no other one, and is looked at again."""

import time
from collections.abc import Callable, Collection, Mapping

from tailor.events.clients import BrokerLost, RightMissing, topic_missing
from tailor.events.faults import Faults

RECHECK_SECONDS = 8.0

Diagnose = Callable[[Collection[str]], Mapping[str, BrokerLost]]


class Availability:
    """The topics of one consumer, with a fault for each that cannot be read. For one thread.

    `diagnose` says why topics do not exist for this user.
    """

    def __init__(
        self,
        topics: Collection[str],
        faults: Faults,
        diagnose: Diagnose = lambda topics: {},
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._topics = frozenset(topics)
        self._faults = faults
        self._diagnose = diagnose
        self._now = now
        self._refused: dict[str, float] = {}
        self._missing: frozenset[str] = frozenset()
        self._checked_at = now()

    def readable(self) -> list[str]:
        """The topics to subscribe to: all but those that were refused less than RECHECK_SECONDS ago."""
        due = self._now() - RECHECK_SECONDS
        self._refused = {topic: at for topic, at in self._refused.items() if at > due}
        return sorted(self._topics - self._refused.keys())

    def refuse(self, error: RightMissing) -> None:
        """Leave out the topics that the error names. Raises the error if it names none, or if none would be left."""
        topics = error.topics & self._topics
        for topic in topics:
            self._refused[topic] = self._now()
            self._faults.report(part_of(topic), error)
        if not topics or not self._topics - self._refused.keys():
            raise error

    def note(self, existing: Collection[str]) -> None:
        """Report the topics that do not exist for this user, and clear the faults of those that can be read. May raise BrokerLost."""
        self._checked_at = self._now()
        self._missing = self._topics - set(existing) - self._refused.keys()
        causes = self._diagnose(self._missing) if self._missing else {}
        for topic in self._topics - self._refused.keys():
            if topic in self._missing:
                self._faults.report(part_of(topic), causes.get(topic) or topic_missing([topic]))
            else:
                self._faults.clear(part_of(topic))

    def is_due(self) -> bool:
        """True if a topic is missing or refused, and it is time to look again."""
        return bool(self._missing or self._refused) and self._now() - self._checked_at >= RECHECK_SECONDS

    def has_changed(self, existing: Collection[str]) -> bool:
        """True if a missing topic exists now, or a refused one is to be tried again. Otherwise looks again later."""
        self._checked_at = self._now()
        due = self._now() - RECHECK_SECONDS
        return bool(self._missing & set(existing)) or any(at <= due for at in self._refused.values())


def part_of(topic: str) -> str:
    """The part that a topic's faults are reported under."""
    return f"topic {topic}"
