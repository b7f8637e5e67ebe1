"""Drafts, serving reports and replica presence as Kafka events."""

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from services.inference import wire
from services.inference.deployments import ReadyReplica
from services.inference.domain import Draft, ServingReport
from services.inference.settings import Settings
from tailor.api.events.v1 import drafts_pb2, models_pb2
from tailor.errors import InvalidArgument, Reason, ResourceExhausted, Unavailable
from tailor.events.envelope import derive_id, new_id
from tailor.events.producer import Producer
from tailor.logging import get_logger
from tailor.wire import now


class Journal:
    """Values in the order in which they were added, until each is removed. Thread-safe; only one process may open the file.

    Values that `add` accepted survive a `kill -9` of the process. A machine that loses power may lose the last values.
    """

    def __init__(self, path: Path, limit: int) -> None:
        """Open or create the file. This and every method raise Unavailable (JOURNAL_UNAVAILABLE) if the file cannot be used."""
        self._limit = limit
        self._lock = threading.Lock()
        with _wrap_errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            # A commit writes to the write-ahead log, which the system keeps if the process dies; nothing waits for the disk.
            self._file.execute("PRAGMA journal_mode = WAL")
            self._file.execute("PRAGMA synchronous = NORMAL")
            self._file.execute(
                "CREATE TABLE IF NOT EXISTS waiting (position INTEGER PRIMARY KEY AUTOINCREMENT, value BLOB NOT NULL)"
            )
            self._count = int(self._file.execute("SELECT count(*) FROM waiting").fetchone()[0])

    def __len__(self) -> int:
        return self._count

    def add(self, value: bytes) -> None:
        """Raises ResourceExhausted (TOO_MANY_DRAFTS) at the limit."""
        with self._lock, _wrap_errors():
            if self._count >= self._limit:
                raise ResourceExhausted(
                    Reason.TOO_MANY_DRAFTS,
                    "The broker has been away for too long: too many drafts wait for it. Retry.",
                    retry_after_seconds=30.0,
                )
            self._file.execute("INSERT INTO waiting (value) VALUES (?)", (value,))
            self._count += 1

    def first(self, number: int) -> Sequence[tuple[int, bytes]]:
        """The oldest values with their positions."""
        with self._lock, _wrap_errors():
            rows = self._file.execute("SELECT position, value FROM waiting ORDER BY position LIMIT ?", (number,))
            return rows.fetchall()

    def remove(self, position: int) -> None:
        with self._lock, _wrap_errors():
            self._count -= self._file.execute("DELETE FROM waiting WHERE position = ?", (position,)).rowcount

    def close(self) -> None:
        with self._lock:
            self._file.close()


@contextmanager
def _wrap_errors() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise Unavailable(
            Reason.JOURNAL_UNAVAILABLE,
            f"The journal of drafts cannot be used ({error}). Check the disk under TAILOR_DATA_DIR.",
        ) from None


log = get_logger(__name__)

DRAFTS = "draft.created.v1"
SERVED = "adapter.served.v1"
SEEN = "replica.seen.v1"

BATCH = 100
# Answers go first: sending a draft at once would compete with answers for the interpreter.
PAUSE_SECONDS = 0.05
RETRY_SECONDS = 1.0
# A third of the time after which the registry considers a silent replica gone.
PRESENCE_SECONDS = 10.0


class DraftPublisher:
    """Writes drafts into the journal, and sends them from there in a thread.

    No answer waits for the broker, and a replica that was killed sends the rest after its restart.
    """

    def __init__(self, producer: Producer, journal: Journal, base: str) -> None:
        self._producer = producer
        self._journal = journal
        self._base = base

    @classmethod
    def from_settings(cls, settings: Settings, producer: Producer) -> "DraftPublisher":
        return cls(producer, Journal(settings.draft_journal, settings.max_waiting_drafts), settings.base)

    def publish(self, draft: Draft) -> None:
        """Publish a draft. Raises Unavailable if it can neither be written nor sent, ResourceExhausted (TOO_MANY_DRAFTS)."""
        message = wire.from_draft(draft, self._base)
        try:
            self._journal.add(message.SerializeToString(deterministic=True))
        except Unavailable as error:
            log.error("draft not written to the journal", draft_id=message.draft_id, reason=error.reason)
            self._send(message)

    def run(self, stop: threading.Event) -> None:
        """Send the journal's drafts until `stop` is set; drafts that the broker does not accept then wait for the next start."""
        while not stop.wait(PAUSE_SECONDS):
            self._relay_all(stop)
        self._relay_all(stop)
        if len(self._journal):
            log.error("drafts not published", drafts=len(self._journal))
        self._journal.close()

    def _relay_all(self, stop: threading.Event) -> None:
        try:
            while len(self._journal):
                self._relay()
        except Unavailable as error:
            log.warning("drafts wait for the broker", drafts=len(self._journal), reason=error.reason)
            stop.wait(RETRY_SECONDS)

    def _relay(self) -> None:
        for position, value in self._journal.first(BATCH):
            message = drafts_pb2.DraftCreated.FromString(value)
            try:
                self._send(message)
            except InvalidArgument as error:
                # The broker will never take it, and it must not hold up the others.
                log.error("draft dropped", draft_id=message.draft_id, reason=error.reason, bytes=len(value))
            self._journal.remove(position)

    def _send(self, message: drafts_pb2.DraftCreated) -> None:
        event_id = derive_id("evt", DRAFTS, message.draft_id, message.text.sha256)
        self._producer.send(DRAFTS, message.draft_id, message, event_id)


class ReportPublisher:
    """Publishes which generations this replica serves; then `refresh` publishes its presence again."""

    def __init__(self, producer: Producer, replica: str, refresh: Callable[[], None] = lambda: None) -> None:
        self._producer = producer
        self._replica = replica
        self._refresh = refresh

    def publish(self, report: ServingReport) -> None:
        """Publish a report. Idempotent. Raises Unavailable while the broker is away."""
        served = report.served
        message = models_pb2.AdapterServed(
            specialist=served.specialist,
            generation=served.generation,
            adapter_digest=served.adapter_digest,
            replica=self._replica,
            serving=not report.refusal,
            reason=report.refusal,
            create_time=now(),
        )
        event_id = derive_id(
            "evt", SERVED, served.specialist, served.generation, served.adapter_digest, self._replica, report.refusal
        )
        self._producer.send(SERVED, served.specialist, message, event_id)
        self._refresh()


class Presence:
    """Publishes that this replica is ready, to be called every few seconds, and at the end that it leaves.

    While the broker is away nothing is repeated: the next event replaces the last.
    """

    def __init__(self, producer: Producer, describe: Callable[[], ReadyReplica]) -> None:
        self._producer = producer
        self._describe = describe
        self._is_ready = False

    def publish(self, *, leaving: bool = False) -> None:
        """Publish the replica's state. From the first call on, it counts as ready."""
        self._is_ready = True
        replica = self._describe()
        message = wire.from_replica(replica, leaving=leaving)
        try:
            self._producer.send(SEEN, replica.name, message, new_id("evt"))
        except Unavailable as error:
            log.warning("presence not published", reason=error.reason)

    def refresh(self) -> None:
        """Publish the state again if the replica is ready."""
        if self._is_ready:
            self.publish()
