"""Texts and true values at the barrier, without stores."""

from dataclasses import replace

import pytest

from services.anonymization.domain import Finding, Passed, RefusedDocument, merge
from services.anonymization.handlers import anonymize_texts
from services.anonymization.wire import to_event, to_ingested
from tailor.api.events.v1 import documents_pb2
from tailor.errors import InvalidArgument, Reason
from tailor.values import Labels
from tests.unit.anonymization.fakes import INGESTED, REF, OneNameAnonymizer


def test_the_labels_of_a_typed_text_reach_the_anonymizer() -> None:
    anonymizer = OneNameAnonymizer()
    anonymize_texts(anonymizer, ("Ms Okafor.",), Labels("wiki", "people"))
    anonymize_texts(anonymizer, ("Ms Okafor.",))
    assert anonymizer.labels == [Labels("wiki", "people"), Labels()]


def test_an_incomplete_event_names_the_missing_fields() -> None:
    with pytest.raises(InvalidArgument, match=r"version\.sequence, text\.uri") as refused:
        to_ingested(documents_pb2.DocumentIngested(document_id="doc_1"))
    assert refused.value.reason is Reason.INCOMPLETE_EVENT


def test_the_same_outcome_gives_the_same_bytes() -> None:
    outcome = Passed(INGESTED, REF, 3, {"PERSON": 1, "CLIENT": 2}, "policy", 1)
    first, second = (to_event(outcome)[1].SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


def test_the_counts_of_what_ingestion_skipped_are_passed_on() -> None:
    _, message = to_event(Passed(replace(INGESTED, removed={"navigation": 7}), REF, 3, {}, "policy", 1))
    assert isinstance(message, documents_pb2.DocumentAnonymized) and dict(message.removed) == {"navigation": 7}


@pytest.mark.parametrize(("reason", "sequence"), [("TIMEOUT", INGESTED.sequence), ("UNREADABLE", 0)])
def test_a_replayed_text_that_the_barrier_refuses_names_the_version_and_its_erasure(reason: str, sequence: int) -> None:
    replayed = replace(INGESTED, supersede_id="ers_1")
    _, message = to_event(RefusedDocument(replayed, "hint", 1, reason))
    assert isinstance(message, documents_pb2.DocumentRejected)
    assert (message.supersede_id, message.version.sequence) == ("ers_1" if sequence else "", sequence)
    _, plain = to_event(RefusedDocument(INGESTED, "hint", 1, reason))
    assert isinstance(plain, documents_pb2.DocumentRejected) and not plain.HasField("version")


@pytest.mark.parametrize("texts", [("x" * 1_000_001,), ("x" * 600_000,) * 2, ("x",) * 1_025])
def test_typed_texts_have_a_limit(texts: tuple[str, ...]) -> None:
    assert anonymize_texts(OneNameAnonymizer(), ("Okafor", "Ask Okafor")).texts == ("Ward", "Ask Ward")
    with pytest.raises(InvalidArgument):
        anonymize_texts(OneNameAnonymizer(), texts)


def test_the_rest_of_a_losing_finding_stays_personal_if_it_has_digits_or_words_of_a_name() -> None:
    text = "Sarah Jenkins London +44 7700900415 Annual Report"
    number = text.index("+")
    findings = [
        Finding(0, 20, "PERSON", 0.6),
        Finding(14, 20, "ADDRESS", 0.9),
        Finding(number, number + 14, "PHONE_NUMBER", 0.7),
        Finding(number + 4, number + 14, "NATIONAL_ID", 0.95),
        Finding(number + 4, len(text), "CLIENT", 0.4),
    ]
    merged = [(finding.entity_type, text[finding.start : finding.end]) for finding in merge(findings, text)]
    assert merged == [
        ("PERSON", "Sarah Jenkins"),
        ("ADDRESS", "London"),
        ("PHONE_NUMBER", "+44"),
        ("NATIONAL_ID", "7700900415"),
        ("CLIENT", "Annual Report"),
    ]
