"""The audit on PostgreSQL."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from sqlalchemy import Engine

from services.registry import wire
from services.registry.adapters.sql import Begin, transactions
from services.registry.adapters.tables import outbox as outbox_rows
from services.registry.bootstrap import MIGRATIONS
from services.registry.domain import Fact, FactKind
from services.registry.handlers import facts
from services.registry.queries import Queries
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import documents_pb2, models_pb2
from tailor.api.registry.v1 import audit_pb2
from tailor.events.memory import MemoryProducer
from tailor.events.outbox import Outbox
from tailor.sql import connect
from tailor.values import Selection
from tests.conftest import migrated

pytestmark = pytest.mark.integration

EVERYTHING = Selection()


class World:
    def __init__(self, engine: Engine) -> None:
        self.begin: Begin = transactions(engine, Outbox(engine, outbox_rows, MemoryProducer("registry")))
        self.queries = Queries(engine)
        self.numbers = count(1)

    def audit(self, specialist: str = "", selection: Selection = EVERYTHING) -> audit_pb2.GetAuditResponse:
        return self.queries.audit(specialist, selection)

    def passed(self, number: int, **values: Any) -> None:
        state = wire.anonymized_state(anonymized(number, **values))
        facts.record_document_state(self.begin, state)

    def rejected(
        self, number: int, reason: documents_pb2.RejectionReason.ValueType, source: str = "wiki", form: str = "pdf"
    ) -> None:
        facts.record_document_state(self.begin, wire.rejected_state(rejected(number, reason, source, form)))

    def built(self, specialist: str) -> None:
        message = models_pb2.DatasetBuilt(digest=f"{next(self.numbers):064x}", figures=models_pb2.DatasetFigures())
        message.create_time.GetCurrentTime()
        fact_id = f"{message.digest}/{specialist}"
        facts.record_fact(self.begin, Fact(FactKind.DATASET, fact_id, specialist, message.SerializeToString()))

    def ran(self, run_id: str, tokens_per_second: float, specialist: str = "reports", **conditions: Any) -> None:
        message = models_pb2.RunProgressed(
            run_id=run_id, specialist=specialist, tokens_per_second=tokens_per_second, **conditions
        )
        facts.record_fact(self.begin, Fact(FactKind.RUN, run_id, specialist, message.SerializeToString()))


def anonymized(
    number: int,
    *,
    chars: int = 1000,
    source: str = "wiki",
    department: str = "risk",
    publisher: str = "",
    form: str = "md",
    language: str = "en",
    findings: dict[str, int] | None = None,
) -> documents_pb2.DocumentAnonymized:
    return documents_pb2.DocumentAnonymized(
        document_id=f"doc_{number}",
        submission_id=f"sub_{number}",
        version=common_pb2.Version(sequence=1, digest="ab"),
        labels=common_pb2.Labels(source=source, department=department, publisher=publisher),
        format=form,
        char_count=chars,
        language=language,
        findings=findings or {},
    )


def rejected(
    number: int, reason: documents_pb2.RejectionReason.ValueType, source: str, form: str
) -> documents_pb2.DocumentRejected:
    return documents_pb2.DocumentRejected(
        document_id=f"doc_r{number}",
        submission_id=f"sub_r{number}",
        stage=documents_pb2.STAGE_INGESTION,
        reason=reason,
        labels=common_pb2.Labels(source=source),
        format=form,
    )


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = connect(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with migrated(database_url, MIGRATIONS) as engine:
        yield World(engine)


def groups(result: audit_pb2.GetAuditResponse, field: int) -> list[tuple[str, int, int, int]]:
    dimension = next(dimension for dimension in result.dimensions if dimension.field == field)
    return [(group.value, group.documents, group.characters, group.findings) for group in dimension.groups]


def test_an_empty_catalogue_has_only_zeros(world: World) -> None:
    result = world.audit()
    assert (result.totals.documents, result.totals.characters, result.totals.findings) == (0, 0, 0)
    assert not result.lengths.histogram and not result.findings and not result.rejections
    assert result.estimate.tokens == 0 and result.estimate.seconds == 0 and result.estimate.run_id == ""


def test_documents_are_counted_by_label_format_and_language(world: World) -> None:
    world.passed(1, findings={"PERSON": 3, "EMAIL_ADDRESS": 1})
    world.passed(2, source="sharepoint", form="pdf", language="de", chars=3000)
    world.passed(3, source="sharepoint", form="pdf", language="", chars=2000, findings={"PERSON": 2})
    result = world.audit()
    assert (result.totals.documents, result.totals.characters, result.totals.findings) == (3, 6000, 6)
    assert groups(result, audit_pb2.AUDIT_FIELD_SOURCE) == [("sharepoint", 2, 5000, 2), ("wiki", 1, 1000, 4)]
    assert groups(result, audit_pb2.AUDIT_FIELD_FORMAT) == [("pdf", 2, 5000, 2), ("md", 1, 1000, 4)]
    assert groups(result, audit_pb2.AUDIT_FIELD_DEPARTMENT) == [("risk", 3, 6000, 6)]
    assert sorted(groups(result, audit_pb2.AUDIT_FIELD_LANGUAGE)) == [
        ("", 1, 2000, 2),
        ("de", 1, 3000, 0),
        ("en", 1, 1000, 4),
    ]


def test_a_new_version_is_counted_once(world: World) -> None:
    world.passed(1, chars=100, findings={"PERSON": 9})
    newer = anonymized(1, chars=700)
    newer.version.sequence, newer.submission_id = 2, "sub_newer"
    facts.record_document_state(world.begin, wire.anonymized_state(newer))
    result = world.audit()
    assert (result.totals.documents, result.totals.characters, result.totals.findings) == (1, 700, 0)


def test_findings_have_density_over_all_characters(world: World) -> None:
    world.passed(1, findings={"PERSON": 3, "EMAIL_ADDRESS": 1})
    world.passed(2, chars=3000, findings={"PERSON": 5})
    result = [
        (item.entity_type, item.values, item.documents, item.per_thousand_chars) for item in world.audit().findings
    ]
    assert result == [("PERSON", 8, 2, 2.0), ("EMAIL_ADDRESS", 1, 1, 0.25)]


def test_lengths_have_percentiles_and_a_histogram_without_gaps(world: World) -> None:
    for number, chars in enumerate((10, 20, 30, 40, 50, 600_000)):
        world.passed(number, chars=chars)
    lengths = world.audit().lengths
    assert (lengths.min_chars, lengths.max_chars) == (10, 600_000)
    assert lengths.percentiles[50] == 35 and lengths.mean_chars == pytest.approx(100_025)
    bins = [(item.from_chars, item.below_chars, item.documents) for item in lengths.histogram]
    assert bins[0] == (0, 250, 5) and bins[-1] == (512_000, 0, 1) and len(bins) == 13
    assert sum(count for _, _, count in bins) == 6


def test_rejections_are_counted_by_reason_and_format_and_duplicates_separately(world: World) -> None:
    for number in range(3):
        world.rejected(number, documents_pb2.REJECTION_REASON_DUPLICATE)
    world.rejected(7, documents_pb2.REJECTION_REASON_CORRUPT, form="docx")
    world.rejected(8, documents_pb2.REJECTION_REASON_MALFORMED, source="x" * 400, form="y" * 90)
    result = world.audit()
    assert result.duplicates == 3
    counted = [(item.reason, item.format, item.stage, item.submissions) for item in result.rejections]
    assert counted[0] == ("DUPLICATE", "pdf", "ingestion", 3) and ("CORRUPT", "docx", "ingestion", 1) in counted


def test_a_specialist_sees_only_what_it_selects(world: World) -> None:
    world.passed(1, source="wiki")
    world.passed(2, source="sharepoint")
    world.rejected(3, documents_pb2.REJECTION_REASON_CORRUPT, source="wiki")
    result = world.audit("reports", Selection(sources=("sharepoint",)))
    assert result.totals.documents == 1 and not result.rejections
    assert groups(result, audit_pb2.AUDIT_FIELD_SOURCE) == [("sharepoint", 1, 1000, 0)]


def test_what_is_new_since_the_last_build_is_counted_by_who_published_it(world: World) -> None:
    world.passed(1, publisher="document-publisher")
    world.built("reports")
    world.passed(2, publisher="key_7")
    world.passed(3, publisher="document-publisher")

    def count_new(result: audit_pb2.GetAuditResponse) -> dict[str, int]:
        [dimension] = [it for it in result.dimensions if it.field == audit_pb2.AUDIT_FIELD_PUBLISHER]
        return {group.value: group.new_documents for group in dimension.groups}

    assert count_new(world.audit("reports")) == {"document-publisher": 1, "key_7": 1}
    assert count_new(world.audit("memos")) == count_new(world.audit()) == {"document-publisher": 0, "key_7": 0}
    world.built("reports")
    assert count_new(world.audit("reports")) == {"document-publisher": 0, "key_7": 0}


def test_the_estimate_is_an_assumption_until_a_run_of_the_specialist_has_reported_its_speed(world: World) -> None:
    world.passed(1, chars=40_001)
    assert world.audit().estimate == audit_pb2.AuditEstimate(tokens=10_001, tokens_per_second=100, seconds=100.01)
    world.ran("run_1", 250.0)
    world.ran("run_2", 0.0)
    world.ran("run_3", 500.0, specialist="other")
    assert (world.audit().estimate.run_id, world.audit().estimate.tokens_per_second) == ("run_3", 375.0)
    assert world.audit("reports").estimate.run_id == "run_1"


def test_the_estimate_is_the_median_of_runs_under_like_conditions(world: World) -> None:
    world.passed(1, chars=4_000)
    here: dict[str, Any] = {"base": "tiny", "method": "sft", "cost": models_pb2.RunCost(device="2 CPU cores")}
    for run_id, speed in (("run_1", 57.0), ("run_2", 60.0)):
        world.ran(run_id, speed, **here)
    world.ran("run_3", 900.0, **{**here, "method": "dpo"})
    world.ran("run_4", 900.0, **{**here, "base": "large"})
    world.ran("run_5", 900.0, **{**here, "cost": models_pb2.RunCost(device="1 x H100")})
    # The newest one, on a busy machine.
    world.ran("run_6", 11.0, **here)
    estimate = world.audit().estimate
    assert (estimate.tokens_per_second, estimate.run_id, estimate.runs) == (57.0, "run_6", 3)


def test_values_after_the_first_fifty_are_counted_but_not_listed(world: World) -> None:
    for number in range(53):
        world.passed(number, source=f"source-{number:02d}")
    dimension = world.audit().dimensions[0]
    assert (len(dimension.groups), dimension.more_values) == (50, 3)
