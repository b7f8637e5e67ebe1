"""Knowing erased documents, and confirming that they were forgotten."""

import threading
import time

import pytest

from tailor.api.events.v1 import documents_pb2
from tailor.errors import InvalidArgument, Reason
from tailor.events.envelope import Event
from tailor.events.erased import ERASED, FORGOTTEN, Erased, ErasedDocuments, Forgotten, forgetting
from tailor.events.memory import MemoryProducer


def erased(document_id: str, *, lifted: bool = False) -> Event:
    message = documents_pb2.DocumentErased(
        document_id=document_id,
        erasure_id="ers_1",
        lifted=lifted,
        dataset_digests=["d1"],
        retired_adapter_digests=["a1"],
    )
    return Event(ERASED, document_id, message.SerializeToString())


def test_a_document_is_erased_until_its_erasure_is_lifted() -> None:
    documents = ErasedDocuments()
    documents.apply(erased("doc_1"))
    assert "doc_1" in documents and "doc_2" not in documents
    documents.apply(erased("doc_1", lifted=True))
    assert "doc_1" not in documents


def test_a_lift_that_is_on_its_way_is_waited_for_and_an_erased_document_only_once() -> None:
    documents = ErasedDocuments(patience_seconds=60.0)
    documents.apply(erased("doc_1"))
    late = threading.Timer(0.2, documents.apply, [erased("doc_1", lifted=True)])
    late.start()
    assert "doc_1" not in documents
    late.join()
    patient = ErasedDocuments(patience_seconds=0.3)
    patient.apply(erased("doc_2"))
    started = time.monotonic()
    assert all("doc_2" in patient for _ in range(200))
    # To wait each time would take a minute.
    assert 0.3 <= time.monotonic() - started < 30


def test_a_service_forgets_and_confirms_with_counts_even_twice() -> None:
    producer, forgotten = MemoryProducer("synthetic"), list[Erased]()

    def forget(erased: Erased) -> Forgotten:
        forgotten.append(erased)
        return Forgotten({"rows": 2, "objects": 0}, ("d1",))

    handler = forgetting("synthetic", forget, producer)
    handler(erased("doc_1"))
    handler(erased("doc_1"))
    assert forgotten[0] == Erased("doc_1", "ers_1", ("d1",), (), ("a1",))
    (answer,) = producer.messages(FORGOTTEN)
    assert isinstance(answer, documents_pb2.DocumentForgotten)
    assert (answer.service, dict(answer.counts), list(answer.dataset_digests)) == ("synthetic", {"rows": 2}, ["d1"])


def test_a_lifted_erasure_forgets_nothing_and_undoes_a_mark() -> None:
    producer, lifted = MemoryProducer("ingestion"), list[str]()
    handler = forgetting("ingestion", lambda _: Forgotten(), producer, lifted.append)
    handler(erased("doc_1", lifted=True))
    assert lifted == ["doc_1"] and not producer.sent


@pytest.mark.parametrize(
    ("document_id", "erasure_id"), [("", "ers_1"), ("doc_1/", "ers_1"), ("/", "ers_1"), ("doc_1", "")]
)
def test_an_erasure_of_an_impossible_document_deletes_nothing(document_id: str, erasure_id: str) -> None:
    producer, documents = MemoryProducer("ingestion"), ErasedDocuments()
    message = documents_pb2.DocumentErased(document_id=document_id, erasure_id=erasure_id)
    event = Event(ERASED, document_id, message.SerializeToString())

    def forget(_: Erased) -> Forgotten:
        raise AssertionError("must not delete")

    for handle in (forgetting("ingestion", forget, producer, supersede=forget), documents.apply):
        with pytest.raises(InvalidArgument) as refused:
            handle(event)
        assert refused.value.reason == Reason.INCOMPLETE_EVENT
    assert producer.messages(FORGOTTEN) == []
