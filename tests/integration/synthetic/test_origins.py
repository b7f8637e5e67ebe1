"""New sources, and publishers of examples and golden documents, wait until an engineer admits them; over PostgreSQL."""

from dataclasses import replace
from itertools import count

import pytest
from sqlalchemy import Engine

from services.synthetic import handlers
from services.synthetic.domain import BuildPolicy, Dataset, Kind, OriginKind
from services.synthetic.rpc import SyntheticServicer
from tailor.api.synthetic.v1 import synthetic_pb2
from tailor.errors import InvalidArgument, NotFound
from tailor.rpc.auth import Caller, set_caller
from tailor.values import DatasetKind, Filters, Labels
from tests.synthetic import CONTEXT, SPECIALIST, UNUSED, World, distinct, put_document, tick

pytestmark = pytest.mark.integration


class Publishing(World):
    """A world whose documents have kinds and labels."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.numbers = count()

    def publish(
        self, documents: int, kind: Kind = Kind.DOCUMENT, source: str = "wiki", publisher: str = "doc-user"
    ) -> None:
        for number in (next(self.numbers) for _ in range(documents)):
            labels = Labels(source, "risk", "internal", publisher)
            is_pair = kind in (Kind.EXAMPLE, Kind.TEST)
            prompt, text = ("What is due?", f"{distinct(number)} End.") if is_pair else (None, distinct(number))
            document = put_document(self.store, number, text=text, prompt=prompt, labels=labels)
            handlers.on_document(self.app, replace(document, kind=kind))

    def not_admitted(self, dataset: Dataset) -> int:
        counted = dataset.skipped.get("not_admitted")
        return counted.documents if counted else 0

    def waiting(self) -> list[tuple[OriginKind, str, int]]:
        return [(it.kind, it.name, it.documents) for it in self.origins() if it.admitted_at is None]


def test_sources_before_the_first_dataset_are_admitted_and_a_later_one_waits_for_an_engineer(engine: Engine) -> None:
    world = Publishing(engine)
    world.publish(30)
    world.publish(10, source="crm")
    first = world.build()
    assert first.documents == 40 and world.waiting() == []
    world.publish(5, source="attacker")
    unchanged = world.build_result()
    assert not unchanged.created and world.not_admitted(unchanged.dataset) == 5
    assert world.waiting() == [(OriginKind.SOURCE, "attacker", 5)]
    handlers.admit_origin(world.app, "reports", OriginKind.SOURCE, "attacker", "key_1")
    second = world.build_result()
    assert second.created and world.not_admitted(second.dataset) == 0 and second.dataset.documents == 45
    admitted = {it.name: it.admitted_by for it in world.origins()}
    assert admitted == {"wiki": "", "crm": "", "attacker": "key_1"}


def test_a_new_source_waits_also_after_an_erasure_dropped_the_only_dataset(engine: Engine) -> None:
    world = Publishing(engine)
    world.publish(40)
    world.datasets.drop_dataset(world.build())
    world.publish(5, source="attacker")
    assert world.waiting() == [(OriginKind.SOURCE, "attacker", 5)]
    assert world.not_admitted(world.build()) == 5


@pytest.mark.parametrize(("kind", "origin"), [(Kind.EXAMPLE, OriginKind.EXAMPLES), (Kind.TEST, OriginKind.TESTS)])
def test_the_first_example_or_test_of_a_publisher_waits_also_before_the_first_dataset(
    engine: Engine, kind: Kind, origin: OriginKind
) -> None:
    world = Publishing(engine)
    world.publish(40)
    world.publish(2, kind, publisher="attacker")
    assert world.not_admitted(world.build()) == 2
    assert world.waiting() == [(origin, "attacker", 2)]
    handlers.admit_origin(world.app, "reports", origin, "attacker", "key_1")
    assert world.not_admitted(world.build()) == 0
    world.publish(1, kind, publisher="another")
    assert world.not_admitted(world.build()) == 1


def test_what_is_admitted_counts_as_new_also_if_a_build_ended_meanwhile(engine: Engine) -> None:
    world = Publishing(engine)
    world.app.specialists["reports"] = specialist = replace(SPECIALIST, policy=BuildPolicy(3))
    world.publish(40)
    world.build()
    world.publish(5, source="crm")
    [built] = tick(world.app)
    assert not built.created and tick(world.app) == []
    last = world.repository.last_build("reports", DatasetKind.SFT)
    handlers.admit_origin(world.app, "reports", OriginKind.SOURCE, "crm", "key_1")
    assert world.repository.progress(specialist, DatasetKind.SFT).new_items == 3
    # A build that began before has not seen the documents.
    assert last.dataset is not None
    world.repository.finish(last.dataset, (), position=last.position, fingerprint="")
    [built] = tick(world.app)
    assert built.created and world.not_admitted(built.dataset) == 0
    assert tick(world.app) == []


def test_an_installation_that_waits_for_everything_says_how_to_go_on(engine: Engine) -> None:
    world = Publishing(engine)
    world.publish(40, Kind.EXAMPLE, publisher="people")
    with pytest.raises(Exception, match="40 documents wait until `tailor specialist admit NAME`"):
        world.build()


def test_golden_documents_of_a_publisher_who_teaches_are_skipped_unless_the_specialist_says_so(engine: Engine) -> None:
    world = Publishing(engine)
    world.publish(40, publisher="key_7")
    world.publish(2, Kind.TEST, publisher="key_7")
    world.publish(1, Kind.TEST, publisher="key_8")
    for publisher in ("key_7", "key_8"):
        world.build()
        handlers.admit_origin(world.app, "reports", OriginKind.TESTS, publisher, "key_1")
    skipped = world.build().skipped
    assert skipped["same_publisher"].documents == 2 and "not_admitted" not in skipped
    world.app.specialists["reports"] = replace(SPECIALIST, filters=Filters(same_publisher_tests=True))
    assert "same_publisher" not in world.build().skipped


def test_a_preview_of_what_is_new_has_it_before_it_is_admitted_and_says_whose_it_is(engine: Engine) -> None:
    world = Publishing(engine)
    world.publish(40)
    assert len(handlers.preview_rows(world.app, "reports", "", 100, new_only=True)) == 100
    world.build()
    assert handlers.preview_rows(world.app, "reports", "", 100, new_only=True) == []
    world.publish(2, source="crm", publisher="attacker")
    rows = handlers.preview_rows(world.app, "reports", "", 100, new_only=True)
    assert rows and {(labels.source, labels.publisher) for _, labels in rows} == {("crm", "attacker")}


def test_calls_are_limited_to_the_specialists_of_a_key_and_record_it(engine: Engine) -> None:
    world = Publishing(engine)
    world.publish(1, Kind.TEST, publisher="key_7")
    servicer = SyntheticServicer(world.app, UNUSED, UNUSED)
    request = synthetic_pb2.AdmitOriginRequest(specialist="reports", name="key_7", admitted_by="key_9")
    set_caller(Caller("key", "k", specialists=frozenset({"other"})))
    with pytest.raises(NotFound):
        servicer.ListOrigins(synthetic_pb2.ListOriginsRequest(specialist="reports"), CONTEXT)
    with pytest.raises(NotFound):
        servicer.AdmitOrigin(request, CONTEXT)
    set_caller(Caller("key", "k", key_id="key_1"))
    with pytest.raises(InvalidArgument):
        servicer.AdmitOrigin(request, CONTEXT)
    request.kind = synthetic_pb2.ORIGIN_KIND_EXAMPLES
    with pytest.raises(NotFound):
        servicer.AdmitOrigin(request, CONTEXT)
    request.kind = synthetic_pb2.ORIGIN_KIND_TESTS
    for _ in range(2):
        servicer.AdmitOrigin(request, CONTEXT)
    [origin] = servicer.ListOrigins(synthetic_pb2.ListOriginsRequest(specialist="reports"), CONTEXT).origins
    assert (origin.name, origin.documents, list(origin.publishers), origin.admitted_by) == (
        "key_7",
        1,
        ["key_7"],
        "key_1",
    )
