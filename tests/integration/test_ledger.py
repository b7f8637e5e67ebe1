"""The ledger over PostgreSQL: serving, storage and experts' time, each counted once."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from services.registry.adapters import tables
from services.registry.adapters.compared_texts import StoredComparedTexts
from services.registry.adapters.datasets import StoredDatasetDocuments
from services.registry.adapters.sql import transactions
from services.registry.bootstrap import MIGRATIONS
from services.registry.consumers import Consumers
from services.registry.domain import (
    RETIRE,
    ErasureReceipt,
    ErasureRequest,
    Gate,
    GivenJudgement,
    PrimaryMetric,
    Specialist,
)
from services.registry.handlers import erasures, specialists
from services.registry.handlers.judgements import record_judgement
from services.registry.queries import Queries
from services.registry.report_rpc import ReportServicer
from services.registry.rules.ledger import UnitPrices
from tailor.api.events.v1 import documents_pb2, drafts_pb2, models_pb2
from tailor.api.registry.v1 import reports_pb2, reports_pb2_grpc
from tailor.errors import InvalidArgument
from tailor.events.envelope import Event
from tailor.events.memory import MemoryProducer
from tailor.events.outbox import Outbox
from tailor.rpc.auth import Authenticator, Caller
from tailor.rpc.channel import open_channel
from tailor.rpc.identity import Trust
from tailor.rpc.server import RpcServer
from tailor.settings import ServiceSettings
from tailor.storage.memory import MemoryStore
from tailor.wire import from_ref
from tests.conftest import migrated
from tests.datasets import store_dataset

pytestmark = pytest.mark.integration

ADAPTER, OTHER = "ad" * 32, "a1" * 32
FIRST, SECOND = "d1" * 32, "d2" * 32
DOCUMENT = "doc_" + "1" * 32
# A month that has passed, so that it was stored for all of it.
MAY = datetime(2026, 5, 1, tzinfo=UTC)
NOON = datetime(2026, 5, 11, 12, tzinfo=UTC)
PRICES = UnitPrices("EUR", serving_hour=3.0, gigabyte_month=0.1, expert_hour=60.0)
GIGABYTE = 10**9


class World:
    """Two specialists, and the ledger's servicer."""

    def __init__(self, engine: Engine) -> None:
        self.store = MemoryStore()
        self.begin = transactions(engine, Outbox(engine, tables.outbox, MemoryProducer("registry")))
        self.servicer = ReportServicer(self.begin, Queries(engine), PRICES)
        self.topics = Consumers(
            self.begin,
            StoredDatasetDocuments(self.store),
            StoredComparedTexts(self.store),
            lambda *_: None,
            lambda body: ErasureReceipt(body, b"", b""),
        ).topics()
        for name in ("memos", "others"):
            gate = Gate(PrimaryMetric("rougeL"), min_rows=1)
            specialist = Specialist(name, "tiny", "lora", gate=gate, on_erasure=RETIRE, monthly_budget=5.0)
            specialists.create_specialist(self.begin, specialist)

    def receive(self, topic: str, message: object) -> None:
        self.topics[topic](Event(topic, "key", message.SerializeToString(), {}))  # type: ignore[attr-defined]

    def receive_draft(
        self, draft_id: str, seconds: float, *, specialist: str = "memos", device: str = "1 x H100", at: datetime = NOON
    ) -> None:
        draft = drafts_pb2.DraftCreated(
            draft_id=draft_id, specialist=specialist, compute_seconds=seconds, compute_device=device
        )
        draft.create_time.FromDatetime(at)
        self.receive("draft.created.v1", draft)

    def receive_dataset(self, digest: str, rows: list[str], *, specialist: str = "memos", at: datetime = MAY) -> int:
        """Publish a dataset of these rows; returns the bytes of its files, without those of its manifest."""
        splits = {"train": [{"row_id": row, "document_ids": [DOCUMENT]} for row in rows]}
        ref, manifest = store_dataset(self.store, splits, rows_per_file=1, specialist=specialist)
        message = models_pb2.DatasetBuilt(digest=digest, specialist=specialist, manifest=from_ref(ref))
        message.create_time.FromDatetime(at)
        self.receive("dataset.built.v1", message)
        return sum(file.ref.size_bytes for file in manifest.files) + ref.size_bytes

    def receive_adapter(self, digest: str, size_bytes: int, dataset: str = "") -> None:
        message = models_pb2.AdapterTrained(
            digest=digest, specialist="memos", size_bytes=size_bytes, dataset_digest=dataset
        )
        message.create_time.FromDatetime(MAY)
        self.receive("adapter.trained.v1", message)

    def judge(self, judgement_id: str, seconds: float) -> None:
        record_judgement(
            self.begin,
            lambda text, _: text,
            GivenJudgement(("drf_1", "drf_2"), seconds=seconds),
            judgement_id=judgement_id,
            may_use=lambda _: True,
            expert_id="exp_1",
        )

    def bill(self, month: str = "2026-05", specialist: str = "memos") -> dict[str, reports_pb2.LedgerLine]:
        return {
            reports_pb2.LedgerKind.Name(line.kind).removeprefix("LEDGER_KIND_"): line
            for line in self.ask(month, specialist).lines
        }

    def ask(self, month: str, specialist: str = "memos") -> reports_pb2.GetLedgerResponse:
        with serve(self.servicer) as stub:
            return stub.GetLedger(reports_pb2.GetLedgerRequest(specialist=specialist, month=month), timeout=60)


@contextmanager
def serve(servicer: ReportServicer) -> Iterator[reports_pb2_grpc.ReportServiceStub]:
    caller = Caller("key", "team", "ROLE_OPERATOR", frozenset(), "key_1")
    server = RpcServer(
        ServiceSettings(rpc_port=0),
        "registry",
        servicers=[(reports_pb2_grpc.add_ReportServiceServicer_to_server, servicer)],
        authenticator=Authenticator("registry", Trust({}), lambda _: caller),
    )
    server.start()
    yield reports_pb2_grpc.ReportServiceStub(open_channel(f"127.0.0.1:{server.port}", lambda: "tlr_test"))
    server.stop(0)


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with migrated(database_url, MIGRATIONS) as engine:
        yield World(engine)


def test_a_run_is_billed_in_each_month_for_what_it_used_there(world: World) -> None:
    june, july = datetime(2026, 6, 2, tzinfo=UTC), datetime(2026, 7, 3, tzinfo=UTC)
    reports = (
        ("run.progressed.v1", models_pb2.RunProgressed(), 1, NOON),
        ("run.progressed.v1", models_pb2.RunProgressed(), 2, NOON + timedelta(hours=1)),
        # Stopped at its budget twice in a month, and resumed each time.
        ("run.failed.v1", models_pb2.RunFailed(), 5, june),
        ("run.progressed.v1", models_pb2.RunProgressed(), 6, june + timedelta(days=1)),
        ("run.failed.v1", models_pb2.RunFailed(), 7, june + timedelta(days=2)),
        ("adapter.trained.v1", models_pb2.AdapterTrained(digest=ADAPTER), 10, july),
    )
    for topic, message, hours, at in reports:
        message.run_id, message.specialist = "run_1", "memos"
        message.cost.CopyFrom(models_pb2.RunCost(device_seconds=3600 * hours, device="1 x H100", amount=2 * hours))
        message.cost.currency = "EUR"
        message.create_time.FromDatetime(at)
        for _ in range(2):  # every event can arrive again
            world.receive(topic, message)
    months = {month: world.bill(month)["COMPUTE"] for month in ("2026-05", "2026-06", "2026-07")}
    assert [(line.quantity, line.amount) for line in months.values()] == [(2, 4), (5, 10), (3, 6)]


def test_the_time_of_a_shared_device_is_billed_to_those_who_used_it(world: World) -> None:
    for _ in range(2):  # a draft is published again when its text is stored
        world.receive_draft("drf_1", 3600)
        world.receive_draft("drf_2", 1800)
    world.receive_draft("drf_3", 7200, specialist="others")
    world.receive_draft("drf_4", 900, specialist="")
    world.receive_draft("drf_5", 0)
    world.receive_draft("drf_6", 5400, at=MAY - timedelta(seconds=1))
    line = world.bill()["SERVING"]
    assert (line.quantity, line.runs, line.device, line.amount, line.currency) == (1.5, 2, "1 x H100", 4.5, "EUR")
    assert world.bill(specialist="others")["SERVING"].quantity == 2.0
    assert world.bill("2026-04")["SERVING"].quantity == 1.5
    assert world.ask("2026-05").budget_used == 4.5


def test_a_file_of_several_datasets_and_specialists_is_stored_once(world: World) -> None:
    world.receive_dataset(FIRST, ["row_1", "row_2"])
    first = world.bill()["STORAGE"].quantity
    world.receive_dataset(SECOND, ["row_1", "row_2", "row_3"], at=MAY + timedelta(minutes=1))
    both = world.bill()["STORAGE"].quantity
    world.receive_dataset("d3" * 32, ["row_1", "row_2"], specialist="others", at=MAY + timedelta(minutes=2))
    assert 0 < first < both < 2 * first
    assert world.bill()["STORAGE"].quantity == both
    shared = world.bill(specialist="others")["STORAGE"].quantity
    # Only its manifest is its own.
    assert 0 < shared < first / 2


def test_an_adapter_is_billed_from_its_training_to_its_retirement(world: World) -> None:
    world.receive_adapter(ADAPTER, 4 * GIGABYTE, FIRST)
    world.receive_adapter(ADAPTER, 4 * GIGABYTE, FIRST)
    world.receive_adapter(OTHER, 1 * GIGABYTE)
    assert world.bill()["STORAGE"].quantity == pytest.approx(5.0)
    assert world.bill()["STORAGE"].amount == pytest.approx(0.5)
    assert "STORAGE" not in world.bill("2026-04")
    world.receive_dataset(FIRST, ["row_1"])
    anonymized = documents_pb2.DocumentAnonymized(document_id=DOCUMENT, submission_id="sub_1")
    world.receive("document.anonymized.v1", anonymized)
    erasures.erase(world.begin, (), ErasureRequest("ers_1", [DOCUMENT], "subject-request"))
    now = datetime.now(UTC)
    assert world.bill()["STORAGE"].quantity == pytest.approx(5.0, abs=1e-5)
    answer = documents_pb2.DocumentForgotten(
        document_id=DOCUMENT, erasure_id="ers_1", service="synthetic", dataset_digests=[FIRST]
    )
    world.receive("document.forgotten.v1", answer)
    later = now + timedelta(days=70)
    assert world.bill(f"{later:%Y-%m}").keys() == set()
    with world.begin() as tx:
        taint = tx.lineage.taints.find(adapter_digest=ADAPTER)
        assert taint is not None and taint.retired


def test_minutes_of_experts_are_billed_and_never_published(world: World) -> None:
    for draft_id in ("drf_1", "drf_2"):
        world.receive_draft(draft_id, 0)
    world.judge("jdg_1", 90)
    world.judge("jdg_1", 90)
    world.judge("jdg_2", 36_000)
    world.judge("jdg_3", 0)
    with pytest.raises(InvalidArgument):
        world.judge("jdg_4", -1)
    lines = world.bill(f"{datetime.now(UTC):%Y-%m}")
    assert (lines["JUDGEMENTS"].quantity, lines["JUDGEMENTS"].HasField("amount")) == (1, False)
    minutes = lines["EXPERT_MINUTES"]
    assert (minutes.quantity, minutes.runs, minutes.amount) == (16.5, 2, 16.5)
    assert "seconds" not in json.dumps([field.name for field in drafts_pb2.JudgementRecorded.DESCRIPTOR.fields])
    assert world.ask(f"{datetime.now(UTC):%Y-%m}").monthly_budget == 5.0
