"""SubmitDocument."""

from collections.abc import Iterator
from typing import Any, cast

import pytest

from services.ingestion.rpc import IngestionServicer
from tailor.api.common.v1 import common_pb2
from tailor.api.ingestion.v1 import ingestion_pb2
from tailor.errors import InvalidArgument, ResourceExhausted
from tailor.rpc.auth import Caller, set_caller
from tests.unit.ingestion.fakes import make_intake

CONTEXT = cast(Any, None)


def stream(*chunks: bytes, **header: object) -> Iterator[ingestion_pb2.SubmitDocumentRequest]:
    fields: dict[str, Any] = {"external_id": "memo-7", "file_name": "memo.md", "request_id": "r-1", **header}
    yield ingestion_pb2.SubmitDocumentRequest(header=ingestion_pb2.DocumentHeader(**fields))
    for chunk in chunks:
        yield ingestion_pb2.SubmitDocumentRequest(chunk=chunk)


@pytest.fixture(autouse=True)
def caller() -> None:
    set_caller(Caller("key", "ann", "ROLE_ENGINEER", key_id="key_1"))


def test_ingests_a_streamed_file_once_per_request_id() -> None:
    intake, _, quarantine = make_intake()
    servicer = IngestionServicer(intake)
    first = servicer.SubmitDocument(stream(b"# Me", b"mo"), CONTEXT)
    assert servicer.SubmitDocument(stream(b"# Me", b"mo"), CONTEXT) == first
    assert first.rejection_reason == "" and len(quarantine.texts) == 1
    assert servicer.SubmitDocument(stream(b"# Memo", request_id="r-2"), CONTEXT).rejection_reason == "DUPLICATE"


def test_rejects_invalid_streams() -> None:
    intake, _, _ = make_intake(max_file_bytes=8)
    servicer = IngestionServicer(intake)
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
