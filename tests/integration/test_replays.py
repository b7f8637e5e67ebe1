"""Replays over PostgreSQL: kept texts, references, owners who publish again, and processes that are killed meanwhile."""

import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Engine

from services.ingestion.adapters.barrier import CurrentBarrier
from services.ingestion.adapters.erasures import DocumentEraser
from services.ingestion.adapters.quarantine import DAY_SECONDS, Quarantine
from services.ingestion.adapters.references import ReferenceCipher
from services.ingestion.adapters.replays import REPLAY, SqlReplays
from services.ingestion.adapters.sql import SqlCatalogue, adopt_barrier
from services.ingestion.adapters.tables import JOBS
from services.ingestion.bootstrap import MIGRATIONS
from services.ingestion.domain import Acceptance, File, Outcome, ParsedText, Rejection, RejectionReason
from services.ingestion.handlers import ingest
from services.ingestion.replay_domain import Replay, ReplayOutcome, ReplayState
from services.ingestion.replay_rpc import ReplayServicer
from services.ingestion.replays import ReplayRunner, replay_document
from services.ingestion.schema import SUBMITTED
from services.ingestion.wire import INGESTED, to_receipt, to_submission
from tailor.api.events.v1 import policies_pb2
from tailor.api.ingestion.v1 import replay_pb2
from tailor.errors import FailedPrecondition, Reason, Unavailable
from tailor.events.envelope import Event
from tailor.events.erased import Erased
from tailor.jobs import HeldJob, JobKind, JobLost, Jobs
from tailor.rpc.auth import Caller, set_caller
from tailor.storage.memory import MemoryStore
from tests.conftest import migrated
from tests.ingestion import DIGEST_KEY, KEY, Ingestion, MemoryFetcher
from tests.jobs import end_leases, run_due

pytestmark = pytest.mark.integration

URI = "s3://reports/memo-9.txt"


class House:
    """Ingestion with a barrier whose policy changes by `apply_policy`. `keep_days` is the operator's setting.

    `is_known` is False if anonymization has not published its policy yet.
    """

    def __init__(self, engine: Engine, keep_days: int = 0, *, is_known: bool = True) -> None:
        self.engine = engine
        self.now = 1_000.0 * DAY_SECONDS
        self.store = MemoryStore()
        self.barrier = CurrentBarrier(adopt=partial(adopt_barrier, engine))
        self.fetcher = MemoryFetcher({URI: File(b"By reference.", "memo-9.txt")})
        self.quarantine = Quarantine(self.store, KEY, keep_days, lambda: self.now)
        references = ReferenceCipher(KEY)
        self.ingestion = Ingestion(
            engine,
            self.store,
            quarantine=self.quarantine,
            fetcher=self.fetcher,
            catalogue=lambda outbox: SqlCatalogue(
                engine, outbox, DIGEST_KEY, barrier=self.barrier, references=references
            ),
        )
        self.intake, catalogue = self.ingestion.intake, self.ingestion.catalogue
        self.replays = SqlReplays(engine, catalogue, references, DIGEST_KEY)
        self.jobs = self.make_jobs()
        self.offset = 0
        if is_known:
            self.apply_policy(1)

    def apply_policy(self, generation: int) -> None:
        message = policies_pb2.PolicyApplied(generation=generation, barrier_digest=f"barrier-{generation}")
        self.barrier.apply(Event("policy.applied.v1", "policy", message.SerializeToString()))

    def publish(self, document_id: str, text: str) -> Outcome:
        headers = {"document-id": document_id, "file-name": "note.txt"}
        return self._ingest(Event(SUBMITTED, document_id, text.encode(), headers, 0, self._next(), 1_700_000_000_000))

    def publish_reference(self, document_id: str, uri: str = URI) -> Outcome:
        value = f'{{"document_id": "{document_id}", "uri": "{uri}"}}'.encode()
        headers = {"content-type": "application/json"}
        return self._ingest(Event(SUBMITTED, document_id, value, headers, 0, self._next(), 1_700_000_000_000))

    def start(self, name: str = "rpl_1", *, all_documents: bool = False) -> Replay:
        return self.replays.start(name, self.barrier(), "key_1", all_documents=all_documents)

    def make_jobs(self) -> Jobs:
        """The jobs of a replica."""
        runner = ReplayRunner(self.intake, self.replays, per_minute=100_000)
        return Jobs(self.engine, JOBS, [JobKind(REPLAY, runner.run)])

    def claim(self) -> HeldJob:
        (job,) = self.jobs.claim()
        return job

    def run(self, name: str = "rpl_1") -> Replay:
        while run_due(self.jobs):
            continue
        replay = self.replays.find(name)
        assert replay is not None
        return replay

    def events(self) -> list[Any]:
        return [message for topic, message, _ in self.ingestion.published() if topic == INGESTED]

    def kept(self) -> list[str]:
        return self.store.list_keys("quarantine", "kept/")

    def _next(self) -> int:
        self.offset += 1
        return self.offset

    def _ingest(self, event: Event) -> Outcome:
        return ingest(self.intake, to_receipt(event, DIGEST_KEY), to_submission(event))


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    with migrated(database_url, MIGRATIONS) as engine:
        yield engine


def list_documents(house: "House", replay_id: str, outcome: str = "") -> list[replay_pb2.ReplayDocument]:
    request = replay_pb2.ListReplayDocumentsRequest(replay_id=replay_id, outcome=outcome)
    return house.replays.list_documents(request).items


def test_kept_texts_are_sent_again_as_new_versions_that_supersede_the_old(engine: Engine) -> None:
    house = House(engine, keep_days=30)
    first = [house.publish(f"memo-{number}", f"Text {number}.") for number in range(3)]
    assert house.start().documents == 0 and house.run().state is ReplayState.DONE
    house.apply_policy(2)
    assert house.start("rpl_2").documents == 3
    replay = house.run("rpl_2")
    assert replay.state is ReplayState.DONE and replay.outcomes == {"KEPT": 3}
    events = house.events()
    assert [event.version.sequence for event in events] == [1, 1, 1, 2, 2, 2]
    assert {event.supersede_id for event in events[:3]} == {""} and len(
        {event.supersede_id for event in events[3:]}
    ) == 1
    old, new = ({event.document_id: event.version.digest for event in part} for part in (events[:3], events[3:]))
    assert old.keys() == new.keys() and not set(old.values()) & set(new.values())
    assert all(isinstance(outcome, Acceptance) for outcome in first)
    assert len(house.kept()) == 3 and all("/2-" in key for key in house.kept())
    assert all(b"Text" not in data for (bucket, _), data in house.store.objects.items() if bucket == "quarantine")


def test_nothing_is_kept_by_default_and_the_owner_publishes_again_without_a_duplicate(engine: Engine) -> None:
    house = House(engine)
    house.publish("memo-7", "Words.")
    again = house.publish("memo-7", "Words.")
    assert isinstance(again, Rejection) and again.reason is RejectionReason.DUPLICATE
    house.apply_policy(2)
    house.start()
    assert house.run().outcomes == {"NEEDS_OWNER": 1} and house.kept() == []
    once_more = house.publish("memo-7", "Words.")
    assert isinstance(once_more, Acceptance) and once_more.sequence == 2 and once_more.supersede_id.startswith("ers_")
    assert house.run().outcomes == {"CURRENT": 1}
    assert isinstance(house.publish("memo-7", "Words."), Rejection)


def test_without_a_replay_the_same_text_under_another_policy_is_no_duplicate_either(engine: Engine) -> None:
    house = House(engine)
    house.publish("memo-7", "Words.")
    house.publish("memo-8", "Other words.")
    house.apply_policy(2)
    again, elsewhere = house.publish("memo-7", "Words."), house.publish("memo-9", "Other words.")
    assert isinstance(again, Acceptance) and again.supersede_id
    assert isinstance(elsewhere, Rejection) and elsewhere.reason is RejectionReason.DUPLICATE
    changed = house.publish("memo-8", "Changed words.")
    assert isinstance(changed, Acceptance) and changed.supersede_id == ""


def test_what_was_accepted_before_the_policy_was_known_is_a_duplicate_until_it_changes(engine: Engine) -> None:
    house = House(engine, is_known=False)
    house.publish("memo-7", "Words.")
    assert isinstance(house.publish("memo-7", "Words."), Rejection)
    house.apply_policy(1)
    assert isinstance(house.publish("memo-7", "Words."), Rejection) and house.start().documents == 0
    house.apply_policy(2)
    assert isinstance(house.publish("memo-7", "Words."), Acceptance)


def test_a_replay_waits_for_the_policy_that_was_applied(engine: Engine) -> None:
    house = House(engine)
    house.publish("memo-7", "Words.")
    servicer = ReplayServicer(house.replays, house.barrier)
    set_caller(Caller("key", "ada", "ROLE_OPERATOR", key_id="key_7"))
    timer = threading.Timer(0.3, house.apply_policy, [2])
    timer.start()
    request = replay_pb2.StartReplayRequest(request_id="one", barrier_digest="barrier-2")
    replay = servicer.StartReplay(request, None).replay  # type: ignore[arg-type]
    assert (replay.documents, replay.barrier_digest) == (1, "barrier-2")
    timer.join()


def test_the_console_starts_a_replay_for_its_visitor_and_nobody_else_for_another(engine: Engine) -> None:
    house = House(engine)
    house.apply_policy(2)
    servicer = ReplayServicer(house.replays, house.barrier)
    request = replay_pb2.StartReplayRequest(request_id="one", requester="key_9")

    def requester(caller: Caller) -> str:
        set_caller(caller)
        replay = servicer.StartReplay(request, None).replay  # type: ignore[arg-type]
        house.replays.cancel(replay.replay_id)
        query = f"SELECT requested_by FROM replays WHERE replay_id = '{replay.replay_id}'"
        with engine.connect() as connection:
            return str(connection.exec_driver_sql(query).scalar_one())

    assert requester(Caller("service", "console")) == "key_9"
    assert requester(Caller("key", "ada", "ROLE_OPERATOR", key_id="key_7")) == "key_7"


def test_a_document_is_fetched_again_by_its_reference(engine: Engine) -> None:
    house = House(engine)
    house.publish_reference("memo-9")
    house.fetcher.files["https://files.example.com/a?signature=secret"] = File(b"Signed.", "a.txt")
    house.publish_reference("memo-10", "https://files.example.com/a?signature=secret")
    with engine.connect() as connection:
        stored = connection.exec_driver_sql("SELECT reference FROM documents").scalars().all()
    assert sorted(map(bool, stored)) == [False, True] and all(b"reports" not in bytes(data) for data in stored)
    house.apply_policy(2)
    house.start()
    assert house.run().outcomes == {"FETCHED": 1, "NEEDS_OWNER": 1}


def test_another_text_at_the_reference_is_left_to_its_owner(engine: Engine) -> None:
    house = House(engine)
    house.publish_reference("memo-9")
    house.apply_policy(2)
    house.fetcher.files[URI] = File(b"Something else.", "memo-9.txt")
    house.start()
    assert house.run().outcomes == {"CHANGED": 1}
    house.fetcher.files.clear()
    house.start("rpl_2")
    assert house.run("rpl_2").outcomes == {"UNREACHABLE": 1}
    assert list_documents(house, "rpl_2", "UNREACHABLE") and not list_documents(house, "rpl_2", "KEPT")


def test_a_replay_that_is_killed_goes_on_and_sends_nothing_twice(engine: Engine) -> None:
    house = House(engine, keep_days=1)
    for number in range(4):
        house.publish(f"memo-{number}", f"Text {number}.")
    house.apply_policy(2)
    house.start()
    job = house.claim()
    document = house.replays.next_document(job)
    assert document is not None
    with pytest.raises(Unavailable):
        _send_and_die(house, job, document)
    assert house.jobs.claim() == []
    end_leases(engine, JOBS)
    other = house.make_jobs()
    (taken,) = other.claim()
    # The process was only paused: it wakes up, and sends nothing.
    with pytest.raises(JobLost):
        house.replays.send(job, document, ParsedText("Text.", "text"), ReplayOutcome.KEPT, _never)
    with pytest.raises(JobLost):
        house.replays.record(job, document, ReplayOutcome.CHANGED)
    house.jobs.work(job)
    assert {entry.outcome for entry in list_documents(house, "rpl_1")} == {""}
    taken.stop.set()
    other.work(taken)
    assert house.run().outcomes == {"KEPT": 4}
    assert sorted(event.version.sequence for event in house.events()) == [1, 1, 1, 1, 2, 2, 2, 2]


def _never(document_id: str, sequence: int) -> Any:
    raise AssertionError("Nothing is stored.")


def _send_and_die(house: House, job: HeldJob, document: Any) -> None:
    def die(document_id: str, sequence: int) -> Any:
        raise Unavailable(Reason.OBJECT_STORE_UNAVAILABLE, "The process ends here.")

    text = house.quarantine.read_kept(document.document_id, document.acceptance.sequence, document.acceptance)
    assert text is not None
    house.replays.send(job, document, text, ReplayOutcome.KEPT, die)


def test_a_document_that_changes_or_is_erased_meanwhile_is_not_sent(engine: Engine) -> None:
    house = House(engine, keep_days=1)
    outcomes = [house.publish(f"memo-{number}", f"Text {number}.") for number in range(2)]
    house.apply_policy(2)
    house.start()
    job = house.claim()
    first = house.replays.next_document(job)
    assert first is not None
    house.publish("memo-0", "Newer text.")
    replay_document(job, house.intake, house.replays, first)
    assert [entry.document_id for entry in list_documents(house, "rpl_1", "CURRENT")] == [first.document_id]
    second = house.replays.next_document(job)
    assert second is not None and second.document_id == outcomes[1].document_id
    DocumentEraser(engine, house.store).forget(Erased(second.document_id, "ers_1"))
    replay_document(job, house.intake, house.replays, second)
    house.jobs.work(job)
    assert house.run().outcomes == {"CURRENT": 1, "ERASED": 1}
    assert house.kept() and not house.store.list_keys("quarantine", f"kept/{second.document_id}/")


def test_one_replay_runs_at_a_time_and_can_be_cancelled(engine: Engine) -> None:
    house = House(engine, keep_days=1)
    house.publish("memo-7", "Words.")
    house.apply_policy(2)
    started = house.start()
    assert house.start().replay_id == started.replay_id
    with pytest.raises(FailedPrecondition) as refused:
        house.start("rpl_2")
    assert refused.value.reason == Reason.REPLAY_RUNNING
    house.replays.cancel("rpl_1")
    assert house.run().state is ReplayState.CANCELLED and house.start("rpl_2").documents == 1
    assert [replay.replay_id for replay in house.replays.list(replay_pb2.ListReplaysRequest()).items] == [
        "rpl_2",
        "rpl_1",
    ]


def test_all_documents_are_sent_again_after_a_list_of_names_changed(engine: Engine) -> None:
    house = House(engine, keep_days=1)
    house.publish("memo-7", "Words.")
    assert house.start(all_documents=True).documents == 1
    assert house.run().outcomes == {"KEPT": 1}
    first, second = house.events()
    assert first.version.digest != second.version.digest and second.supersede_id


def test_kept_texts_end_with_the_time_that_the_operator_set(engine: Engine) -> None:
    house = House(engine, keep_days=2)
    house.publish("memo-7", "Words.")
    assert house.quarantine.sweep() == 0
    house.now += 3 * DAY_SECONDS
    assert house.quarantine.sweep() == 1 and house.kept() == []
    house.publish("memo-8", "More words.")
    nothing = Quarantine(house.store, KEY, 0, lambda: house.now)
    assert nothing.sweep() == 1
