"""Topics that keep by consumption: their consumer deletes what it has handled, and what it has not handled stays much longer.

Also finds topics whose names are almost those of a topic that outsiders write. Apache Kafka refuses a topic that does not exist; a broker
that creates topics by itself swallows the documents of a publisher who misspells one.
"""

import difflib
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

import kafka
from kafka.errors import TopicAuthorizationFailedError

from tailor.errors import Reason, Unavailable
from tailor.events.clients import broker_errors, open_consumer, right_missing, wait_for_broker
from tailor.events.faults import Faults
from tailor.events.offsets import find_since, find_starts
from tailor.events.topics import Topic
from tailor.logging import get_logger
from tailor.settings import KafkaSettings

log = get_logger(__name__)

PAUSE_SECONDS = 60.0
ANSWER_MS = 5_000
HOUR_SECONDS = 3_600
SIMILARITY = 0.9


class RawTopics:
    """Deletes, once a minute, the events that the group handled and that are older than the topic's retention. Idempotent."""

    def __init__(
        self,
        settings: KafkaSettings,
        service: str,
        topics: Collection[Topic],
        faults: Faults,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._group = settings.kafka_group_prefix + service
        self._topics = {settings.kafka_topic_prefix + topic.name: topic for topic in topics}
        self._faults = faults
        self._now = now
        self._misspelt: set[str] = set()

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set. Blocks; waits for a lost broker, which the log watch reports."""
        while not stop.wait(PAUSE_SECONDS):
            with wait_for_broker(stop):
                self.trim_once()

    def trim_once(self) -> None:
        """Look at the topics once. Blocks; raises BrokerLost."""
        client = open_consumer(self._settings, group_id=self._group, client_id=f"{self._group}-trim")
        try:
            with broker_errors(self._settings, group=self._group):
                self.report_misspelt(client.topics())
                ends = self.find_ends(client)
        finally:
            client.close(autocommit=False, timeout_ms=0)
        if ends:
            with broker_errors(self._settings, right="DELETE"):
                admin = kafka.KafkaAdminClient(**self._settings.kafka_arguments())
                try:
                    self.trim(admin, ends)
                finally:
                    admin.close()

    def find_ends(self, client: Any) -> dict[Any, int]:
        """The offset of each partition before which everything was handled and has been kept long enough."""
        partitions = [
            kafka.TopicPartition(name, number)
            for name in sorted(self._topics)
            for number in sorted(client.partitions_for_topic(name) or ())
        ]
        if not partitions:
            return {}
        oldest_kept = {
            partition: int((self._now() - (self._topics[partition.topic].retention_hours or 0) * HOUR_SECONDS) * 1000)
            for partition in partitions
        }
        # Without a younger event, everything that was handled is old enough.
        first_kept = find_since(client, oldest_kept, ANSWER_MS)
        starts = find_starts(client, partitions, ANSWER_MS)
        ends = {}
        for partition in partitions:
            handled = client.committed(partition, timeout_ms=ANSWER_MS) or 0
            end = min(handled, first_kept[partition])
            if end > starts[partition]:
                ends[partition] = end
        return ends

    def trim(self, admin: Any, ends: Mapping[Any, int]) -> None:
        """Delete the events before these offsets. A missing right is a notice: they stay until the broker's own retention."""
        try:
            admin.delete_records(dict(ends))
        except TopicAuthorizationFailedError:
            topics = {partition.topic for partition in ends}
            self._faults.notice("raw topics", right_missing(self._settings.kafka_user, "DELETE", topics))
            return
        self._faults.clear("raw topics")
        log.info("handled events deleted", partitions=len(ends))

    def report_misspelt(self, existing: Collection[str]) -> None:
        """Notice topics whose names are almost right: what was published there reaches nobody.

        The topics of another installation, which differ by their prefix only, are not reported.
        """
        meanings = {name: meant for name in existing if (meant := self._find_meant(name))}
        for name in self._misspelt - meanings.keys():
            self._faults.clear(f"topic {name}")
        self._misspelt = set(meanings)
        for name, meant in sorted(meanings.items()):
            self._faults.notice(
                f"topic {name}",
                Unavailable(
                    Reason.MISSPELT_TOPIC,
                    f"This installation does not read topic {name}. If {meant} was meant, publish the documents again there.",
                ),
            )

    def _find_meant(self, name: str) -> str | None:
        prefix = self._settings.kafka_topic_prefix
        if any(name.endswith(known.removeprefix(prefix)) for known in self._topics):
            return None
        return next(iter(difflib.get_close_matches(name, self._topics, 1, SIMILARITY)), None)
