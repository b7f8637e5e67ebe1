"""Passing the barrier, without stores."""

from dataclasses import replace

import pytest

from services.anonymization.consumers import ANONYMIZED, REJECTED, ProducedFacts, on_ingested, to_ingested, to_message
from services.anonymization.domain import Finding, Passed, Text, Unreadable, merge
from services.anonymization.handlers import Barrier, anonymize_text, pass_document, reidentify
from services.anonymization.spans import Span
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import documents_pb2
from tailor.errors import InvalidArgument, NotFound, Unavailable
from tailor.events.envelope import Event
from tailor.events.memory import MemoryProducer
from tests.unit.anonymization.fakes import (
    INGESTED,
    REF,
    MemoryAudit,
    MemoryCorpus,
    MemoryLedger,
    MemoryQuarantine,
    MemorySubjects,
    MemoryVault,
    ShoutingAnonymizer,
)

TEXT = Text("Ms Okafor decides.", "Ask Okafor.")


class World:
    def __init__(self, text: Text | None = TEXT, damaged: bool = False) -> None:
        self.quarantine = MemoryQuarantine(text, damaged)
        self.corpus = MemoryCorpus()
        self.subjects = MemorySubjects()
        self.producer = MemoryProducer("anonymization")
        self.anonymizer = ShoutingAnonymizer()
        self.barrier = Barrier(
            self.quarantine,
            self.corpus,
            MemoryLedger(),
            ProducedFacts(self.producer),
            self.anonymizer,
            "policy",
            lambda text: "en",
            self.subjects,
            lambda: 1,
        )


def test_a_document_passes_with_its_findings_and_leaves_quarantine() -> None:
    world = World()
    outcome = pass_document(world.barrier, INGESTED)
    assert isinstance(outcome, Passed)
    assert world.corpus.texts == [Text("Ms Ward decides.", "Ask Ward.")]
    assert world.quarantine.deleted == [REF]
    message = world.producer.messages(ANONYMIZED)[0]
    assert isinstance(message, documents_pb2.DocumentAnonymized)
    assert dict(message.findings) == {"PERSON": 2} and message.policy_digest == "policy"
    assert message.language == "en"
    assert message.labels.department == "risk" and message.version.sequence == 1
    assert "Okafor" not in str(message)


def test_a_documents_labels_choose_among_the_policys_rules() -> None:
    world = World()
    pass_document(world.barrier, INGESTED)
    assert world.anonymizer.labels == [INGESTED.labels]


def test_the_spans_of_a_text_move_with_its_surrogates() -> None:
    text = "# Ms Okafor\n\nOkafor leads.\n\n# Next page\n"
    page = text.index("# Next")
    spans = (Span(1, 1, 0, 0, page - 2), Span(1, 2, 0, page, len(text) - 1), Span(2, 1, 1, page, len(text) - 1))
    world = World(Text(text))
    pass_document(world.barrier, replace(INGESTED, spans=spans))
    message = world.producer.messages(ANONYMIZED)[0]
    clean = world.corpus.texts[0].text
    assert len(clean) == len(text) - 4
    assert [(each.kind, each.number, clean[each.start : each.end]) for each in message.spans] == [
        (common_pb2.SPAN_KIND_PAGE, 1, "# Ms Ward\n\nWard leads."),
        (common_pb2.SPAN_KIND_PAGE, 2, "# Next page"),
        (common_pb2.SPAN_KIND_SECTION, 1, "# Next page"),
    ]


def test_the_spans_of_an_example_are_those_of_its_answer() -> None:
    answer = "# Okafor\n\nIt holds.\n"
    world = World(Text(answer, "Ask Okafor, and Okafor again."))
    pass_document(world.barrier, replace(INGESTED, spans=(Span(2, 1, 1, 0, len(answer) - 1),)))
    (span,) = world.producer.messages(ANONYMIZED)[0].spans
    assert world.corpus.texts[0].text[span.start : span.end] == "# Ward\n\nIt holds."


def test_a_typed_text_goes_by_the_labels_of_what_it_belongs_to() -> None:
    anonymizer = ShoutingAnonymizer()
    anonymize_text(anonymizer, "Ms Okafor.", ("wiki", "people", ""))
    anonymize_text(anonymizer, "Ms Okafor.")
    assert anonymizer.labels == [("wiki", "people", ""), ("", "", "")]


def test_a_redelivery_states_the_same_event_without_quarantine() -> None:
    world = World()
    pass_document(world.barrier, INGESTED)
    pass_document(world.barrier, INGESTED)
    (_, _, first, first_id), (_, _, again, again_id) = world.producer.sent
    assert (first_id, first) == (again_id, again)
    assert len(world.corpus.texts) == 1


def test_quarantine_is_kept_until_the_event_is_out() -> None:
    world = World()
    world.producer.down = True
    with pytest.raises(Unavailable):
        pass_document(world.barrier, INGESTED)
    assert world.quarantine.deleted == []
    world.producer.down = False
    pass_document(world.barrier, INGESTED)
    assert world.quarantine.deleted == [REF] and len(world.producer.sent) == 1


def test_an_older_version_is_stated_too() -> None:
    world = World()
    pass_document(world.barrier, replace(INGESTED, sequence=2))
    world.quarantine.deleted.clear()
    pass_document(world.barrier, INGESTED)
    assert len(world.producer.messages(ANONYMIZED)) == 2


@pytest.mark.parametrize("world", [World(damaged=True), World(text=None)])
def test_what_does_not_verify_or_is_gone_is_rejected(world: World) -> None:
    outcome = pass_document(world.barrier, INGESTED)
    assert isinstance(outcome, Unreadable)
    message = world.producer.messages(REJECTED)[0]
    assert isinstance(message, documents_pb2.DocumentRejected)
    assert message.reason == documents_pb2.REJECTION_REASON_UNREADABLE
    assert message.stage == documents_pb2.STAGE_ANONYMIZATION and message.hint
    assert world.corpus.texts == []


def test_the_event_is_read_whole() -> None:
    message = documents_pb2.DocumentIngested(
        document_id="doc_1",
        submission_id="sub_1",
        version=common_pb2.Version(sequence=1, digest="digest"),
        kind=common_pb2.KIND_DOCUMENT,
        labels=common_pb2.Labels(source="wiki", department="risk", confidentiality="internal"),
        text=common_pb2.ObjectRef(uri=REF.uri, sha256=REF.sha256, size_bytes=REF.size_bytes),
        format="md",
    )
    assert to_ingested(message) == INGESTED
    world = World()
    on_ingested(world.barrier)(Event("document.ingested.v1", "doc_1", message.SerializeToString()))
    assert len(world.producer.sent) == 1


@pytest.mark.parametrize("value", [b"\xff\xff", b"", None])
def test_an_event_that_names_nothing_is_invalid(value: bytes | None) -> None:
    with pytest.raises(InvalidArgument):
        on_ingested(World().barrier)(Event("document.ingested.v1", "doc_1", value))


def test_the_same_outcome_gives_the_same_bytes() -> None:
    outcome = Passed(INGESTED, REF, 3, {"PERSON": 1, "CLIENT": 2}, "policy", 1)
    assert to_message(outcome)[1].SerializeToString(deterministic=True) == to_message(outcome)[1].SerializeToString(
        deterministic=True
    )


def test_anonymize_refuses_what_is_too_long() -> None:
    assert anonymize_text(ShoutingAnonymizer(), "Okafor").texts == ("Ward",)
    with pytest.raises(InvalidArgument):
        anonymize_text(ShoutingAnonymizer(), "x" * 1_000_001)


def test_reidentification_is_audited_before_it_is_answered() -> None:
    vault, audit = MemoryVault(), MemoryAudit()
    vault.issue("IBAN", "k", "GB33BUKB20201555555555", lambda _: "GB00")
    purpose = "court order 12"
    assert (
        reidentify(vault, audit, caller="key_1", entity_type="IBAN", surrogate="GB00", purpose=purpose)
        == "GB33BUKB20201555555555"
    )
    with pytest.raises(NotFound):
        reidentify(vault, audit, caller="key_1", entity_type="IBAN", surrogate="GB99", purpose=purpose)
    with pytest.raises(InvalidArgument):
        reidentify(vault, audit, caller="key_1", entity_type="IBAN", surrogate="GB00", purpose="why")
    assert audit.calls == [("key_1", "IBAN", "GB00", purpose), ("key_1", "IBAN", "GB99", purpose)]


def test_what_is_left_of_a_finding_that_lost_stays_personal_where_it_has_digits_or_is_a_person() -> None:
    text = "Sarah Jenkins London +44 7700900415 Annual Report"
    number = text.index("+")
    findings = [
        Finding(0, 20, "PERSON", 0.6),
        Finding(14, 20, "ADDRESS", 0.9),
        Finding(number, number + 14, "PHONE_NUMBER", 0.7),
        Finding(number + 4, number + 14, "NATIONAL_ID", 0.95),
        Finding(number + 4, len(text), "CLIENT", 0.4),
    ]
    found = [(one.entity_type, text[one.start : one.end]) for one in merge(findings, text)]
    assert found == [
        ("PERSON", "Sarah Jenkins"),
        ("ADDRESS", "London"),
        ("PHONE_NUMBER", "+44"),
        ("NATIONAL_ID", "7700900415"),
    ]
