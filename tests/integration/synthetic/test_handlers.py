"""When datasets are built and refused, what a build reads from the registry, what specialists' filters take out, and previews."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import pytest
from sqlalchemy import text

from services.synthetic import handlers
from services.synthetic.adapters.sql import SqlRepository
from services.synthetic.consumers import Consumers
from services.synthetic.domain import BuildPolicy, BuildProgress, DocumentPage, OverRedaction, Specialist
from services.synthetic.wire import from_dataset, to_dataset
from tailor.api.events.v1 import drafts_pb2
from tailor.errors import Aborted, FailedPrecondition, InvalidArgument, NotFound, Reason, Unavailable
from tailor.events.envelope import Event
from tailor.storage.memory import MemoryStore
from tailor.storage.ref import Ref
from tailor.values import DatasetKind, Filters, Labels, RowPolicy, Selection
from tests.synthetic import SPECIALIST, World, distinct, key_of, put_document, tick

pytestmark = pytest.mark.integration


class LostStore(MemoryStore):
    """Does not answer reads."""

    def get(self, ref: Ref) -> bytes:
        raise Unavailable(Reason("DOWN"), "Down.")


def test_a_refused_build_is_not_tried_every_second_and_a_lost_store_only_delays_it(world: World) -> None:
    world.define(selection=Selection(("wiki",)))
    world.fill(count=2)
    with pytest.raises(FailedPrecondition, match="TOO_FEW_ROWS"):
        world.build()
    assert tick(world.app) == []
    asked = []

    def refuse(selection: Selection) -> None:
        asked.append(selection)
        raise FailedPrecondition(Reason.RESIDUAL_TOO_HIGH, "5.0 % [3.1, 7.6] of the passages; improve the policy.")

    world.fill(2, 20)
    limited = replace(world.app, check_residual=refuse)
    with pytest.raises(FailedPrecondition, match="RESIDUAL_TOO_HIGH"):
        handlers.build_dataset(limited, "reports", "")
    assert tick(limited) == [] and asked == [Selection(("wiki",))]
    world.fill(22, 1)
    with pytest.raises(Unavailable):
        tick(replace(world.app, store=LostStore()))
    assert world.published() == []
    (result,) = tick(world.app)
    assert result.created and tick(world.app) == []


def test_waits_for_another_replicas_build_then_aborts(world: World) -> None:
    repository = World(world.engine).repository
    with repository.building("reports") as is_held, repository.building("memos") as is_other_held:
        assert is_held and is_other_held
        with pytest.raises(Aborted, match="BUILD_RUNNING"):
            world.build()
    with repository.building("reports") as is_held:
        assert is_held


class CountingRepository(SqlRepository):
    """Counts how often it is asked for the progress of a specialist."""

    calls = 0

    def progress(self, specialist: Specialist, kind: DatasetKind) -> BuildProgress:
        self.calls += 1
        return super().progress(specialist, kind)


def test_the_tick_asks_nothing_until_something_new_arrives(world: World) -> None:
    repository = CountingRepository(world.engine, world.outbox)
    world.app = replace(world.app, repository=repository)
    world.define(policy=BuildPolicy(100))
    world.fill(count=20)
    for _ in range(5):
        tick(world.app)
    assert repository.calls == 1
    world.fill(20, 1)
    tick(world.app)
    assert repository.calls == 2
    world.define(revision=2, policy=BuildPolicy(21))
    assert len(tick(world.app)) == 1


class Gone(Exception):
    """The process ends here."""


def test_a_build_reads_what_events_have_not_brought_and_again_what_a_killed_process_did_not_finish(
    world: World,
) -> None:
    asked: list[tuple[str, int]] = []
    is_killed = True

    def list_documents(name: str, changed_since: int) -> Iterator[DocumentPage]:
        asked.append((name, changed_since))
        cursor = 10 * len(asked)
        yield DocumentPage(tuple(put_document(world.store, number) for number in range(changed_since, 20)), cursor)
        if is_killed:
            raise Gone
        yield DocumentPage(tuple(put_document(world.store, number) for number in range(20, 30)), cursor)

    world.app = replace(world.app, list_documents=list_documents)
    with pytest.raises(Gone):
        world.build()
    is_killed = False
    assert world.build().documents == 30 and not world.build_result().created
    assert asked == [("reports", 0), ("reports", 0), ("reports", 20)]
    handlers.on_specialist(world.app, replace(SPECIALIST, revision=2))
    for _ in range(2):
        tick(world.app)
    # Once per revision.
    assert asked[3:] == [("reports", 0)]


def test_nothing_is_built_for_a_deleted_specialist_and_older_revisions_do_not_return(world: World) -> None:
    handlers.forget_specialist(world.app, "reports", 2)
    handlers.on_specialist(world.app, SPECIALIST)
    assert tick(world.app) == [] and world.app.specialists == {}
    again = replace(SPECIALIST, revision=3)
    handlers.on_specialist(world.app, again)
    handlers.forget_specialist(world.app, "reports", 2)
    assert world.app.specialists == {"reports": again}


def test_a_tie_makes_no_rows_and_events_without_an_id_are_refused(world: World) -> None:
    consumers = Consumers(world.app)

    def record(message: drafts_pb2.JudgementRecorded) -> None:
        consumers.judgement(Event("judgement.recorded.v1", "reports", message.SerializeToString(), {}))

    drafts, outcome = ["drf_1", "drf_2"], drafts_pb2.JUDGEMENT_OUTCOME_TIE
    record(
        drafts_pb2.JudgementRecorded(judgement_id="jdg_0", specialist="reports", equal_drafts=drafts, outcome=outcome)
    )
    record(drafts_pb2.JudgementRecorded(judgement_id="jdg_1", specialist="reports", ranking=drafts))
    with world.engine.begin() as connection:
        assert list(connection.scalars(text("SELECT judgement_id FROM judgements"))) == ["jdg_1"]
    for message in (drafts_pb2.JudgementRecorded(), drafts_pb2.JudgementRecorded(retracted=True)):
        with pytest.raises(InvalidArgument):
            record(message)


def test_a_preview_has_a_row_of_each_document_before_a_second_one_and_stores_nothing(world: World) -> None:
    world.define(selection=Selection(departments=("risk",)))
    world.fill(count=12)
    world.put(500, labels=Labels("wiki", "people", "internal"))
    drawn = handlers.preview_rows(world.app, "reports", "", 10)
    assert len({row.document_ids for row, _ in drawn}) == 10
    assert drawn == handlers.preview_rows(world.app, "reports", "", 10)
    assert len({row.document_ids for row, _ in handlers.preview_rows(world.app, "reports", "", 24)}) == 12
    of_one = handlers.preview_rows(world.app, "reports", key_of(1), 20)
    assert {row.document_ids for row, _ in of_one} == {(key_of(1),)}
    for name, document_id in (("reports", key_of(500)), ("nobody", "")):
        with pytest.raises(NotFound):
            handlers.preview_rows(world.app, name, document_id, 4)
    world.define(filters=Filters(max_chars=10))
    assert handlers.preview_rows(world.app, "reports", key_of(1), 20) == []
    assert world.published() == [] and world.repository.sides("reports", [key_of(n) for n in range(12)]) == {}


def test_over_redaction_is_measured_in_the_documents_that_rows_come_from(world: World) -> None:
    measured: list[list[str]] = []

    def measure(batches: Iterable[Sequence[str]]) -> OverRedaction:
        measured.append(sorted(key for batch in batches for key in batch))
        return OverRedaction(1.84, 1.0)

    world.app = replace(world.app, measure_over_redaction=measure)
    world.fill(count=20)
    dataset = world.build()
    assert measured == [sorted(world.documents(dataset.digest))] and len(measured[0]) == 20
    assert (dataset.figures.over_redaction, dataset.figures.max_over_redaction) == (1.84, 1.0)
    assert world.manifest(dataset.digest).figures == dataset.figures
    event = from_dataset(dataset)
    assert event.figures.over_redaction == 1.84
    assert to_dataset(event, near_duplicates=0).figures == dataset.figures


def test_a_flood_of_one_source_is_limited_in_documents_and_in_rows_and_counted(world: World) -> None:
    for number in range(42):
        source = "flood" if number < 30 else "wiki" if number < 36 else "share"
        world.put(number, labels=Labels(source, "risk", "internal"))
    first = world.build()
    assert first.skipped == {} and world.manifest(first.digest).skipped == {}
    world.define(filters=Filters(max_source_documents=20, max_source_percent=50))
    second = world.build()
    flood = {key_of(number) for number in range(30)}
    train = world.rows(second.digest, "train")
    assert second.digest != first.digest and second.skipped["source"].documents == 10
    assert 0 < sum(row["document_ids"][0] in flood for row in train) <= len(train) / 2
    limited = second.skipped["max_source_percent"]
    assert limited.rows > 10 and limited.characters > 0 and second.figures.coverage < 1
    content = json.loads(world.store.get(second.manifest))
    assert content["filters"]["max_source_documents"] == 20


def test_a_large_document_loses_rows_until_it_has_its_share_if_there_are_enough_documents(world: World) -> None:
    large = {number: "\n\n".join(distinct(1000 * number + part) for part in range(20)) for number in (1, 2, 3)}
    for number, content in large.items():
        world.put(number, text=content)
    world.fill(4, 9)
    assert "max_document_percent" not in world.build().skipped
    world.fill(13, 17)
    world.define(rows=RowPolicy(max_document_percent=10))
    dataset = world.build()
    tokens: Counter[str] = Counter()
    for row in world.rows(dataset.digest, "train"):
        tokens[row["document_ids"][0]] += row["tokens"]
    assert 7 <= 100 * max(tokens.values()) / tokens.total() <= 10
    assert dataset.skipped["max_document_percent"].rows > 10
    world.define(rows=RowPolicy(max_document_percent=0))
    assert "max_document_percent" not in world.build().skipped


def test_a_budget_of_tokens_keeps_rows_of_people_and_counts_the_rest(world: World) -> None:
    world.define(rows=RowPolicy(max_train_tokens=800))
    people = [0, 20, 40]
    for number in people:
        answer = f"The answer number{number} is that {distinct(number).splitlines()[4]}"
        handlers.on_document(
            world.app, put_document(world.store, number, text=answer, prompt=f"What is number{number} about?")
        )
    world.put(*(number for number in range(60) if number not in people))
    for origin in world.origins():
        handlers.admit_origin(world.app, "reports", origin.kind, origin.name, "key_1")
    dataset = world.build()
    train = world.rows(dataset.digest, "train")
    assert 600 < sum(row["tokens"] for row in train) <= 800
    human = {row["document_ids"][0] for row in train if row["made_by"] == "human"}
    assert human | world.taught(dataset.digest, "held_out") >= {key_of(number) for number in people}
    skipped = dataset.skipped["max_train_tokens"]
    assert skipped.rows > 50 and skipped.documents > 10 and skipped.characters > 1000
