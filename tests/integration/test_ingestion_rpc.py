"""SubmitDocument and GetSubmission, over PostgreSQL."""

from collections.abc import Iterator
from typing import Any, cast

import pytest
from sqlalchemy import Engine

from services.ingestion.bootstrap import MIGRATIONS
from services.ingestion.rpc import IngestionServicer
from tailor.api.common.v1 import common_pb2
from tailor.api.ingestion.v1 import ingestion_pb2
from tailor.errors import InvalidArgument, NotFound, Reason, ResourceExhausted
from tailor.events.faults import Faults
from tailor.events.operations import Backpressure, EventParts
from tailor.rpc.auth import Caller, set_caller
from tailor.values import Labels
from tests.conftest import migrated
from tests.ingestion import Ingestion

pytestmark = pytest.mark.integration

CONTEXT = cast(Any, None)


def stream(*chunks: bytes, **header: object) -> Iterator[ingestion_pb2.SubmitDocumentRequest]:
    fields: dict[str, Any] = {"external_id": "memo-7", "file_name": "memo.md", "request_id": "r-1", **header}
    yield ingestion_pb2.SubmitDocumentRequest(header=ingestion_pb2.DocumentHeader(**fields))
    for chunk in chunks:
        yield ingestion_pb2.SubmitDocumentRequest(chunk=chunk)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    set_caller(Caller("key", "ann", "ROLE_ENGINEER", key_id="key_1"))
    with migrated(database_url, MIGRATIONS) as engine:
        yield engine


def test_ingests_a_streamed_file_once_per_request_id_and_knows_its_publisher(engine: Engine) -> None:
    house = Ingestion(engine)
    servicer, labels = IngestionServicer(house.intake), common_pb2.Labels(source="wiki", publisher="example-publisher")
    first = servicer.SubmitDocument(stream(b"# Me", b"mo", labels=labels), CONTEXT)
    assert servicer.SubmitDocument(stream(b"# Me", b"mo"), CONTEXT) == first
    assert first.rejection_reason == "" and len(house.texts()) == 1
    assert servicer.SubmitDocument(stream(b"# Memo", request_id="r-2"), CONTEXT).rejection_reason == "DUPLICATE"
    duplicate, accepted = house.catalogue.find_submissions("memo-7", 10)
    assert accepted.outcome.labels == Labels("wiki", publisher="key_1") and duplicate.publisher == "key_1"


def test_rejects_invalid_streams(engine: Engine) -> None:
    servicer = IngestionServicer(Ingestion(engine, max_file_bytes=8).intake)
    bad = [
        iter([]),
        iter([ingestion_pb2.SubmitDocumentRequest(chunk=b"x")]),
        stream(request_id=""),
        stream(external_id=""),
    ]
    bad += [stream(labels=common_pb2.Labels(source="Jane Doe")), stream(draft_id="drf_1")]
    for parts in bad:
        with pytest.raises(InvalidArgument):
            servicer.SubmitDocument(parts, CONTEXT)
    with pytest.raises(ResourceExhausted):
        servicer.SubmitDocument(stream(b"12345", b"67890"), CONTEXT)


class Watch:
    """What is known of the log: the largest share of a topic's retention that an unhandled event has used."""

    def __init__(self) -> None:
        self.used = 0.0

    def retention_used(self) -> float:
        return self.used


class Waiting:
    """An outbox in which events wait."""

    def __init__(self) -> None:
        self.waiting = 0


def test_publishers_are_slowed_before_events_expire_and_while_too_many_wait_to_be_sent(engine: Engine) -> None:
    watch, outbox = Watch(), Waiting()
    parts = EventParts(Faults(), watch=cast(Any, watch), outbox=cast(Any, outbox))
    house = Ingestion(engine)
    servicer = IngestionServicer(house.intake, Backpressure(parts).admit)
    watch.used = 0.75
    with pytest.raises(ResourceExhausted, match="75%") as caught:
        servicer.SubmitDocument(stream(b"# Memo"), CONTEXT)
    assert caught.value.reason is Reason.BACKLOG_TOO_OLD and caught.value.retry_after_seconds
    watch.used, outbox.waiting = 0.74, 20_000
    with pytest.raises(ResourceExhausted, match="20,000 events") as caught:
        servicer.SubmitDocument(stream(b"# Memo"), CONTEXT)
    assert caught.value.reason is Reason.TOO_MUCH_WAITS and caught.value.retry_after_seconds
    assert not house.texts()
    outbox.waiting = 19_999
    assert servicer.SubmitDocument(stream(b"# Memo"), CONTEXT).rejection_reason == ""


def submission(servicer: IngestionServicer, external_id: str = "memo-7", key_id: str = "") -> ingestion_pb2.Submission:
    request = ingestion_pb2.GetSubmissionRequest(external_id=external_id, key_id=key_id)
    return servicer.GetSubmission(request, CONTEXT).submissions[0]


def test_a_publisher_finds_its_document_by_its_own_id(engine: Engine) -> None:
    servicer = IngestionServicer(Ingestion(engine).intake)
    accepted = servicer.SubmitDocument(stream(b"# Memo"), CONTEXT)
    found = submission(servicer)
    assert (found.submission_id, found.document_id) == (accepted.submission_id, accepted.document_id)
    assert (found.version, found.rejection_reason) == (1, "")
    servicer.SubmitDocument(stream(b"# Memo", request_id="r-2"), CONTEXT)
    assert (submission(servicer).rejection_stage, submission(servicer).rejection_reason) == ("ingestion", "DUPLICATE")
    with pytest.raises(NotFound, match="topic's name"):
        submission(servicer, "memo-8")
    with pytest.raises(InvalidArgument):
        submission(servicer, "")


def test_a_publisher_sees_only_its_own_submissions_and_an_operator_all(engine: Engine) -> None:
    servicer = IngestionServicer(Ingestion(engine).intake)
    servicer.SubmitDocument(stream(b"# Memo"), CONTEXT)
    set_caller(Caller("key", "ben", "ROLE_ENGINEER", key_id="key_2"))
    with pytest.raises(NotFound):
        submission(servicer)
    set_caller(Caller("key", "olga", "ROLE_OPERATOR", key_id="key_3"))
    assert submission(servicer).version == 1
    set_caller(Caller("service", "console"))
    assert submission(servicer).version == 1
    assert submission(servicer, key_id="key_1").version == 1
    with pytest.raises(NotFound):
        submission(servicer, key_id="key_2")
