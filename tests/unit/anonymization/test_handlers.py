"""Documents, texts and true values at the barrier, without stores."""

from dataclasses import replace

import pytest

from services.anonymization import domain, handlers
from services.anonymization.adapters.kafka import KafkaOutcomes
from services.anonymization.consumers import on_ingested
from services.anonymization.domain import (
    NO_LABELS,
    Anonymized,
    DocumentOutcome,
    DocumentText,
    Finding,
    Ingested,
    Passed,
    Unreadable,
    merge,
)
from services.anonymization.handlers import anonymize_row, anonymize_texts, reidentify
from services.anonymization.wire import ANONYMIZED, REJECTED, to_event, to_ingested
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import documents_pb2
from tailor.errors import InvalidArgument, NotFound, Reason, ResourceExhausted, Unavailable
from tailor.events.envelope import Event
from tailor.events.erased import Erased, Forgotten
from tailor.events.memory import MemoryProducer
from tailor.values import Labels, Span, SpanKind
from tests.unit.anonymization.fakes import (
    INGESTED,
    REF,
    MemoryAuditLog,
    MemoryCorpus,
    MemoryLedger,
    MemoryQuarantine,
    MemoryRecorder,
    MemorySubjects,
    MemoryTrueValues,
    MemoryVault,
    OneNameAnonymizer,
    UncoveredAnonymizer,
)

TEXT = DocumentText("Ms Okafor decides.", "Ask Okafor.")


class World:
    def __init__(self, text: DocumentText | None = TEXT, damaged: bool = False) -> None:
        self.quarantine = MemoryQuarantine(text, damaged)
        self.corpus = MemoryCorpus()
        self.subjects = MemorySubjects()
        self.ledger = MemoryLedger()
        self.recorder = MemoryRecorder()
        self.producer = MemoryProducer("anonymization")
        self.anonymizer = OneNameAnonymizer()

    def pass_document(self, ingested: Ingested = INGESTED) -> DocumentOutcome:
        return handlers.pass_document(
            ingested,
            quarantine=self.quarantine,
            corpus=self.corpus,
            subjects=self.subjects,
            ledger=self.ledger,
            publisher=KafkaOutcomes(self.producer),
            anonymizer=self.anonymizer,
            recorder=self.recorder,
            language_of=lambda text: "en",
            now_ms=lambda: 1,
        )

    def forget(self, erased: Erased) -> Forgotten:
        return handlers.forget(
            erased,
            quarantine=self.quarantine,
            corpus=self.corpus,
            subjects=self.subjects,
            recorder=self.recorder,
            ledger=self.ledger,
        )

    def consume(self, value: bytes | None, erased: tuple[str, ...] = ()) -> None:
        on_ingested(self.pass_document, self.quarantine, erased)(Event("document.ingested.v1", "doc_1", value))


def test_a_document_passes_with_its_findings_and_leaves_quarantine() -> None:
    world = World()
    outcome = world.pass_document()
    assert isinstance(outcome, Passed)
    assert world.corpus.texts == [DocumentText("Ms Ward decides.", "Ask Ward.")]
    assert world.quarantine.deleted == [REF]
    message = world.producer.messages(ANONYMIZED)[0]
    assert isinstance(message, documents_pb2.DocumentAnonymized)
    assert dict(message.findings) == {"PERSON": 2} and message.policy_digest == "policy"
    assert message.language == "en"
    assert message.labels.department == "risk" and message.version.sequence == 1
    assert "Okafor" not in str(message)


def test_a_document_that_passes_is_recorded_for_reviews_before_its_outcome() -> None:
    world = World()
    world.pass_document()
    clean, result, language = world.recorder.recorded["doc_1"]
    assert clean == world.corpus.texts[0] and language == "en"
    assert [change.replacement for change in result.changes[1]] == ["Ward"]
    world.pass_document()
    assert world.forget(Erased("doc_1", "ers_1")).counts["review_passages"] == 1


def test_a_document_in_a_language_that_is_not_covered_is_rejected_with_the_hint() -> None:
    world = World()
    world.anonymizer = UncoveredAnonymizer()
    outcome = world.pass_document()
    assert isinstance(outcome, Unreadable) and world.corpus.texts == []
    message = world.producer.messages(REJECTED)[0]
    assert isinstance(message, documents_pb2.DocumentRejected)
    assert message.reason == documents_pb2.REJECTION_REASON_LANGUAGE_NOT_COVERED and "`sv`" in message.hint


class FailingAnonymizer(OneNameAnonymizer):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def anonymize(self, texts: tuple[str, ...], labels: Labels = NO_LABELS, passed: tuple[str, ...] = ()) -> Anonymized:
        raise self.error


def test_a_document_that_takes_too_much_is_rejected() -> None:
    world = World()
    world.anonymizer = FailingAnonymizer(ResourceExhausted(Reason.TOO_EXPENSIVE, "It took too much."))
    outcome = world.pass_document()
    assert isinstance(outcome, Unreadable) and world.corpus.texts == []
    message = world.producer.messages(REJECTED)[0]
    assert isinstance(message, documents_pb2.DocumentRejected)
    assert message.reason == documents_pb2.REJECTION_REASON_TOO_EXPENSIVE and message.hint == "It took too much."


def test_a_document_that_ended_the_service_twice_is_rejected_at_the_third_start() -> None:
    world = World()
    # No handler sees that the process ends.
    world.anonymizer = FailingAnonymizer(SystemExit())
    for _ in range(2):
        with pytest.raises(SystemExit):
            world.pass_document()
    world.anonymizer = OneNameAnonymizer()
    outcome = world.pass_document()
    assert isinstance(outcome, Unreadable) and outcome.reason == "TOO_EXPENSIVE" and "twice" in outcome.hint
    assert not world.ledger.starts


def test_a_document_that_waits_for_others_is_tried_as_often_as_it_takes() -> None:
    world = World()
    world.anonymizer = FailingAnonymizer(Unavailable(Reason.DETECTOR_UNAVAILABLE, "Retry."))
    for _ in range(5):
        with pytest.raises(Unavailable):
            world.pass_document()
    world.anonymizer = OneNameAnonymizer()
    assert isinstance(world.pass_document(), Passed)


def test_a_document_says_which_languages_were_masked_by_rules_only() -> None:
    world = World()
    world.anonymizer = UncoveredAnonymizer(is_held=False)
    world.pass_document()
    message = world.producer.messages(ANONYMIZED)[0]
    assert isinstance(message, documents_pb2.DocumentAnonymized)
    assert message.rules_only_languages == ["sv"]


def test_a_documents_labels_choose_among_the_policys_rules() -> None:
    world = World()
    world.pass_document()
    assert world.anonymizer.labels == [INGESTED.labels]


def test_spans_move_with_the_surrogates() -> None:
    text = "# Ms Okafor\n\nOkafor leads.\n\n# Next page\n"
    page = text.index("# Next")
    spans = (
        Span(SpanKind.PAGE, 1, 0, page - 2),
        Span(SpanKind.PAGE, 2, page, len(text) - 1),
        Span(SpanKind.SECTION, 1, page, len(text) - 1, 1),
    )
    world = World(DocumentText(text))
    world.pass_document(replace(INGESTED, spans=spans))
    message = world.producer.messages(ANONYMIZED)[0]
    assert isinstance(message, documents_pb2.DocumentAnonymized)
    clean = world.corpus.texts[0].text
    assert len(clean) == len(text) - 4
    assert [(span.kind, span.number, clean[span.start : span.end]) for span in message.spans] == [
        (common_pb2.SPAN_KIND_PAGE, 1, "# Ms Ward\n\nWard leads."),
        (common_pb2.SPAN_KIND_PAGE, 2, "# Next page"),
        (common_pb2.SPAN_KIND_SECTION, 1, "# Next page"),
    ]


def test_the_spans_of_an_example_refer_to_its_answer() -> None:
    answer = "# Okafor\n\nIt holds.\n"
    world = World(DocumentText(answer, "Ask Okafor, and Okafor again."))
    world.pass_document(replace(INGESTED, spans=(Span(SpanKind.SECTION, 1, 0, len(answer) - 1, 1),)))
    message = world.producer.messages(ANONYMIZED)[0]
    assert isinstance(message, documents_pb2.DocumentAnonymized)
    (span,) = message.spans
    assert world.corpus.texts[0].text[span.start : span.end] == "# Ward\n\nIt holds."


def test_the_insights_of_a_golden_document_pass_the_barrier_statement_by_statement() -> None:
    insights = {"owners": ("Ms Okafor signs.",), "figures": ("3 of 4", "12 %")}
    golden = DocumentText("Ms Okafor decides.", "Ask Okafor.", insights)
    assert DocumentText.decode(golden.encode()) == golden
    world = World(golden)
    outcome = world.pass_document()
    assert isinstance(outcome, Passed)
    (clean,) = world.corpus.texts
    assert "Okafor" not in clean.encode().decode()
    assert clean.insights is not None
    assert {kind: len(entries) for kind, entries in clean.insights.items()} == {"owners": 1, "figures": 2}
    assert clean.insights["figures"] == ("3 of 4", "12 %")
    assert clean.prompt is not None and clean.prompt.startswith("Ask ")
    assert outcome.char_count == sum(map(len, clean.parts))


def test_the_labels_of_a_typed_text_reach_the_anonymizer() -> None:
    anonymizer = OneNameAnonymizer()
    anonymize_texts(anonymizer, ("Ms Okafor.",), Labels("wiki", "people"))
    anonymize_texts(anonymizer, ("Ms Okafor.",))
    assert anonymizer.labels == [Labels("wiki", "people"), Labels()]


def test_a_redelivery_publishes_the_same_event_without_quarantine() -> None:
    world = World()
    world.pass_document()
    world.pass_document()
    (_, _, first, first_id), (_, _, second, second_id) = world.producer.sent
    assert (first_id, first) == (second_id, second)
    assert len(world.corpus.texts) == 1


def test_quarantine_stays_until_the_event_is_published() -> None:
    world = World()
    world.producer.down = True
    with pytest.raises(Unavailable):
        world.pass_document()
    assert world.quarantine.deleted == []
    world.producer.down = False
    world.pass_document()
    assert world.quarantine.deleted == [REF] and len(world.producer.sent) == 1


def test_an_older_version_is_published_too() -> None:
    world = World()
    world.pass_document(replace(INGESTED, sequence=2))
    world.quarantine.deleted.clear()
    world.pass_document()
    assert len(world.producer.messages(ANONYMIZED)) == 2


@pytest.mark.parametrize("world", [World(damaged=True), World(text=None)])
def test_rejects_a_text_that_does_not_verify_or_no_longer_exists(world: World) -> None:
    outcome = world.pass_document()
    assert isinstance(outcome, Unreadable)
    message = world.producer.messages(REJECTED)[0]
    assert isinstance(message, documents_pb2.DocumentRejected)
    assert message.reason == documents_pb2.REJECTION_REASON_UNREADABLE
    assert message.stage == documents_pb2.STAGE_ANONYMIZATION and message.hint
    assert world.corpus.texts == []


def test_the_event_is_read_completely() -> None:
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
    world.consume(message.SerializeToString())
    assert len(world.producer.sent) == 1


@pytest.mark.parametrize("value", [b"\xff\xff", b"", None])
def test_an_undecodable_or_empty_event_is_invalid(value: bytes | None) -> None:
    with pytest.raises(InvalidArgument):
        World().consume(value)


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
    _, message = to_event(Unreadable(replayed, "hint", 1, reason))
    assert isinstance(message, documents_pb2.DocumentRejected)
    assert (message.supersede_id, message.version.sequence) == ("ers_1" if sequence else "", sequence)
    _, plain = to_event(Unreadable(INGESTED, "hint", 1, reason))
    assert isinstance(plain, documents_pb2.DocumentRejected) and not plain.HasField("version")


@pytest.mark.parametrize("texts", [("x" * 1_000_001,), ("x" * 600_000,) * 2, ("x",) * 1_025])
def test_typed_texts_have_a_limit(texts: tuple[str, ...]) -> None:
    assert anonymize_texts(OneNameAnonymizer(), ("Okafor", "Ask Okafor")).texts == ("Ward", "Ask Ward")
    with pytest.raises(InvalidArgument):
        anonymize_texts(OneNameAnonymizer(), texts)


def test_a_row_is_recorded_under_its_id_before_it_is_answered() -> None:
    subjects, row_id = MemorySubjects(), f"txt_{1:032x}"
    result = anonymize_row(OneNameAnonymizer(), subjects, row_id, ("Who is Okafor?", "Okafor."), Labels())
    assert result.texts == ("Who is Ward?", "Ward.") and row_id in subjects.values
    for wrong, texts in ((f"doc_{1:032x}", ("a",)), ("txt_1", ("a",)), (row_id, ("x" * 600_000, "y" * 600_000))):
        with pytest.raises(InvalidArgument):
            anonymize_row(OneNameAnonymizer(), subjects, wrong, texts, Labels())
    assert list(subjects.values) == [row_id]


def test_reidentification_is_audited_before_it_is_answered() -> None:
    vault, audit = MemoryVault(), MemoryAuditLog()
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


def count_true_values(texts: list[str], ids: list[list[str]], known: list[str] | None = None) -> dict[str, int]:
    index = MemoryTrueValues(
        {"doc_1": [("PERSON", "Ngozi Okafor"), ("IBAN", "GB82")], "doc_2": [("PERSON", "Tom Hale")]}
    )
    return handlers.count_true_values(
        index, MemoryAuditLog(), caller="evaluation", texts=texts, known_texts=known or [], document_ids=ids
    )


def test_true_values_are_counted_once_by_type_over_all_batches_of_ids() -> None:
    texts = ["Ngozi Okafor and Tom Hale.", "Ngozi Okafor again, GB82."]
    assert count_true_values(texts, [["doc_1"], ["doc_2", "doc_1"]]) == {"PERSON": 2, "IBAN": 1}
    assert count_true_values(texts, [["doc_2"]], known=["Tom Hale?"]) == {}


def test_a_search_for_true_values_is_audited_before_it_is_answered_and_without_texts() -> None:
    audit = MemoryAuditLog()
    handlers.count_true_values(
        MemoryTrueValues({}), audit, caller="evaluation", texts=["Okafor"], known_texts=[], document_ids=[]
    )
    assert audit.calls == [("evaluation", "TRUE_VALUES", "", "counts true values in 1 answers of a model")]


@pytest.mark.parametrize(
    ("texts", "ids", "field"),
    [
        (["x"] * (domain.MAX_SEARCH_TEXTS + 1), [], "texts"),
        (["x" * (domain.MAX_SEARCH_CHARS + 1)], [], "texts"),
        (["x"], [["doc"] * (domain.MAX_SEARCH_IDS + 1)], "document_ids"),
    ],
)
def test_a_search_for_true_values_is_bounded(texts: list[str], ids: list[list[str]], field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        count_true_values(texts, ids)
    assert refused.value.reason == Reason.TOO_LONG
    assert list(refused.value.field_violations) == [field]
