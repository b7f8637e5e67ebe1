"""Documents at the barrier, their outcomes, and people, over PostgreSQL."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from sqlalchemy import Row

from services.anonymization import handlers
from services.anonymization.consumers import on_ingested
from services.anonymization.domain import (
    NO_LABELS,
    Anonymized,
    DocumentOutcome,
    DocumentText,
    FindingCount,
    Passed,
    RefusedDocument,
)
from services.anonymization.ledger import SqlAuditLog
from services.anonymization.ports import Anonymizer
from services.anonymization.review.domain import join_parts
from services.anonymization.review.tables import DOCUMENTS
from services.anonymization.vault.tables import OCCURRENCES
from services.anonymization.wire import ANONYMIZED, REJECTED, to_ingested
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import documents_pb2
from tailor.errors import InvalidArgument, NotFound, Reason, ResourceExhausted, TailorError, Unavailable
from tailor.events.envelope import Event
from tailor.events.erased import Erased
from tailor.rows import Rows
from tailor.storage.buckets import QUARANTINE
from tailor.storage.ref import Ref
from tailor.values import Labels, Span, SpanKind
from tests.barrier import MIGRATIONS, BarrierHouse
from tests.conftest import migrated
from tests.unit.anonymization.fakes import INGESTED, REF, OneNameAnonymizer, UncoveredAnonymizer

pytestmark = pytest.mark.integration

TEXT = DocumentText("Ms Okafor decides.", "Ask Okafor.")


class World(BarrierHouse):
    """A text waits in quarantine."""

    def pass_document(self, text: DocumentText = TEXT, spans: tuple[Span, ...] = ()) -> DocumentOutcome:
        return self.pass_text(text, replace(INGESTED, spans=spans))

    def use(self, anonymizer: Anonymizer) -> None:
        self.barrier = replace(self.barrier, anonymizer=anonymizer)

    def anonymized(self) -> documents_pb2.DocumentAnonymized:
        message = self.producer.messages(ANONYMIZED)[0]
        assert isinstance(message, documents_pb2.DocumentAnonymized)
        return message

    def rejected(self) -> documents_pb2.DocumentRejected:
        message = self.producer.messages(REJECTED)[0]
        assert isinstance(message, documents_pb2.DocumentRejected)
        return message

    def consume(self, value: bytes | None, erased: tuple[str, ...] = ()) -> None:
        on_ingested(self.barrier, erased)(Event("document.ingested.v1", "doc_1", value))


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with migrated(database_url, MIGRATIONS) as engine:
        yield World(engine)


def test_a_document_passes_with_its_findings_and_leaves_quarantine(world: World) -> None:
    outcome = world.pass_document()
    assert isinstance(outcome, Passed)
    assert world.texts() == [DocumentText("Ms Ward decides.", "Ask Ward.")]
    assert world.quarantined() == []
    message = world.anonymized()
    assert dict(message.findings) == {"PERSON": 2} and message.policy_digest == "policy"
    assert message.language == "en"
    assert message.labels.department == "risk" and message.version.sequence == 1
    assert "Okafor" not in str(message)


def test_a_document_that_passes_is_recorded_for_reviews_before_its_outcome(world: World) -> None:
    world.producer.down = True
    with pytest.raises(Unavailable):
        world.pass_document()
    (recorded,) = Rows(world.engine, DOCUMENTS, Row).all()
    assert (recorded.document_id, recorded.language, recorded.department) == ("doc_1", "en", "risk")
    (clean,) = world.texts()
    assert [join_parts(clean.parts)[start:end] for start, end in recorded.replaced] == ["Ward", "Ward"]


def test_a_document_in_a_language_that_is_not_covered_is_rejected_with_the_hint(world: World) -> None:
    world.use(UncoveredAnonymizer())
    outcome = world.pass_document()
    assert isinstance(outcome, RefusedDocument) and world.texts() == []
    message = world.rejected()
    assert message.reason == documents_pb2.REJECTION_REASON_LANGUAGE_NOT_COVERED and "`sv`" in message.hint


class FailingAnonymizer(OneNameAnonymizer):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def anonymize(self, texts: tuple[str, ...], labels: Labels = NO_LABELS, passed: tuple[str, ...] = ()) -> Anonymized:
        raise self.error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ResourceExhausted(Reason.TOO_EXPENSIVE, "It took too much."), documents_pb2.REJECTION_REASON_TOO_EXPENSIVE),
        (InvalidArgument(Reason.CHILD_FAILED, "A defect."), documents_pb2.REJECTION_REASON_UNREADABLE),
    ],
)
def test_a_document_that_cannot_be_read_is_rejected(world: World, error: TailorError, reason: int) -> None:
    world.use(FailingAnonymizer(error))
    outcome = world.pass_document()
    assert isinstance(outcome, RefusedDocument) and world.texts() == []
    message = world.rejected()
    assert message.reason == reason and message.hint == error.message


def test_a_document_that_ended_the_service_twice_is_rejected_at_the_third_start(world: World) -> None:
    # No handler sees that the process ends.
    world.use(FailingAnonymizer(SystemExit()))
    for _ in range(2):
        with pytest.raises(SystemExit):
            world.pass_document()
    world.use(OneNameAnonymizer())
    outcome = world.pass_document()
    assert isinstance(outcome, RefusedDocument) and outcome.reason == "TOO_EXPENSIVE" and "twice" in outcome.hint
    assert world.ledger.start("doc_1", 1) == 1


def test_a_document_that_waits_for_others_is_tried_as_often_as_it_takes(world: World) -> None:
    world.use(FailingAnonymizer(Unavailable(Reason.DETECTOR_UNAVAILABLE, "Retry.")))
    for _ in range(5):
        with pytest.raises(Unavailable):
            world.pass_document()
    world.use(OneNameAnonymizer())
    assert isinstance(world.pass_document(), Passed)


def test_a_document_says_which_languages_were_masked_by_rules_only(world: World) -> None:
    world.use(UncoveredAnonymizer(is_held=False))
    world.pass_document()
    message = world.anonymized()
    assert message.rules_only_languages == ["sv"]


def test_a_documents_labels_choose_among_the_policys_rules(world: World) -> None:
    anonymizer = OneNameAnonymizer()
    world.use(anonymizer)
    world.pass_document()
    assert anonymizer.labels == [INGESTED.labels]


def test_spans_move_with_the_surrogates(world: World) -> None:
    text = "# Ms Okafor\n\nOkafor leads.\n\n# Next page\n"
    page = text.index("# Next")
    spans = (
        Span(SpanKind.PAGE, 1, 0, page - 2),
        Span(SpanKind.PAGE, 2, page, len(text) - 1),
        Span(SpanKind.SECTION, 1, page, len(text) - 1, 1),
    )
    world.pass_document(DocumentText(text), spans)
    message = world.anonymized()
    clean = world.texts()[0].text
    assert len(clean) == len(text) - 4
    assert [(span.kind, span.number, clean[span.start : span.end]) for span in message.spans] == [
        (common_pb2.SPAN_KIND_PAGE, 1, "# Ms Ward\n\nWard leads."),
        (common_pb2.SPAN_KIND_PAGE, 2, "# Next page"),
        (common_pb2.SPAN_KIND_SECTION, 1, "# Next page"),
    ]


def test_the_spans_of_an_example_refer_to_its_answer(world: World) -> None:
    answer = "# Okafor\n\nIt holds.\n"
    section = Span(SpanKind.SECTION, 1, 0, len(answer) - 1, 1)
    world.pass_document(DocumentText(answer, "Ask Okafor, and Okafor again."), (section,))
    message = world.anonymized()
    (span,) = message.spans
    assert world.texts()[0].text[span.start : span.end] == "# Ward\n\nIt holds."


def test_the_insights_of_a_golden_document_pass_the_barrier_statement_by_statement(world: World) -> None:
    insights = {"owners": ("Ms Okafor signs.",), "figures": ("3 of 4", "12 %")}
    golden = DocumentText("Ms Okafor decides.", "Ask Okafor.", insights)
    assert DocumentText.decode(golden.encode()) == golden
    outcome = world.pass_document(golden)
    assert isinstance(outcome, Passed)
    (clean,) = world.texts()
    assert "Okafor" not in clean.encode().decode()
    assert clean.insights is not None
    assert {kind: len(entries) for kind, entries in clean.insights.items()} == {"owners": 1, "figures": 2}
    assert clean.insights["figures"] == ("3 of 4", "12 %")
    assert clean.prompt is not None and clean.prompt.startswith("Ask ")
    assert outcome.char_count == sum(map(len, clean.parts))


def test_a_redelivery_publishes_the_same_event_without_quarantine(world: World) -> None:
    world.pass_document()
    handlers.pass_document(world.barrier, INGESTED)
    (_, _, first, first_id), (_, _, second, second_id) = world.producer.sent
    assert (first_id, first) == (second_id, second)
    assert len(world.texts()) == 1


def test_quarantine_stays_until_the_event_is_published(world: World) -> None:
    world.producer.down = True
    with pytest.raises(Unavailable):
        world.pass_document()
    assert len(world.quarantined()) == 1
    world.producer.down = False
    world.pass_document()
    assert world.quarantined() == [] and len(world.producer.sent) == 1


def test_an_older_version_is_published_too(world: World) -> None:
    world.pass_text(TEXT, replace(INGESTED, sequence=2))
    world.pass_document()
    assert len(world.producer.messages(ANONYMIZED)) == 2


@pytest.mark.parametrize("data", [b"damaged", None])
def test_rejects_a_text_that_does_not_verify_or_no_longer_exists(world: World, data: bytes | None) -> None:
    ingested = world.submit(TEXT)
    world.store.delete(QUARANTINE, ingested.text.key)
    if data is not None:
        ingested = replace(ingested, text=world.store.put(QUARANTINE, ingested.text.key, data))
    assert isinstance(handlers.pass_document(world.barrier, ingested), RefusedDocument)
    message = world.rejected()
    assert message.reason == documents_pb2.REJECTION_REASON_UNREADABLE
    assert message.stage == documents_pb2.STAGE_ANONYMIZATION and message.hint
    assert world.texts() == []


def test_the_event_is_read_completely(world: World) -> None:
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
    world.consume(message.SerializeToString())
    assert len(world.producer.sent) == 1


@pytest.mark.parametrize("value", [b"\xff\xff", b"", None])
def test_an_undecodable_or_empty_event_is_invalid(world: World, value: bytes | None) -> None:
    with pytest.raises(InvalidArgument):
        world.consume(value)


def test_an_erased_document_is_forgotten_on_both_sides_and_only_once(world: World) -> None:
    world.pass_document()
    world.submit(TEXT, replace(INGESTED, sequence=2))
    assert Rows(world.engine, OCCURRENCES, Row).has()
    counts = handlers.forget(world.barrier, Erased("doc_1", "ers_1")).counts
    assert (counts["quarantine_objects"], counts["corpus_objects"], counts["versions"]) == (1, 1, 1)
    assert world.texts() == [] and world.quarantined() == [] and not Rows(world.engine, DOCUMENTS, Row).has()
    assert not Rows(world.engine, OCCURRENCES, Row).has()
    assert not any(handlers.forget(world.barrier, Erased("doc_1", "ers_1")).counts.values())


def test_texts_of_versions_before_a_replays_leave_the_corpus_unless_another_has_them(world: World) -> None:
    other = replace(INGESTED, document_id="doc_2")
    for text, ingested in (("Mr Okafor left.", INGESTED), (TEXT, replace(INGESTED, sequence=2)), (TEXT, other)):
        world.pass_text(text if isinstance(text, DocumentText) else DocumentText(text), ingested)
    world.pass_text(DocumentText("Mr Okafor is back."), replace(INGESTED, sequence=3))
    counts = handlers.supersede(world.barrier, Erased("doc_1", "ers_1", sequence=3)).counts
    assert counts == {"corpus_objects": 1, "versions": 2}
    assert sorted(text.text for text in world.texts()) == ["Mr Ward is back.", "Ms Ward decides."]


def test_an_erased_document_that_arrives_late_leaves_quarantine_and_goes_no_further(world: World) -> None:
    ref = world.submit(TEXT).text
    message = documents_pb2.DocumentIngested(
        document_id="doc_1",
        version=common_pb2.Version(sequence=1),
        text=common_pb2.ObjectRef(uri=ref.uri, sha256=ref.sha256, size_bytes=ref.size_bytes),
    )
    world.consume(message.SerializeToString(), erased=("doc_1",))
    assert world.quarantined() == [] and not world.producer.sent and not world.texts()


def test_a_row_is_recorded_under_its_id_before_it_is_answered(world: World) -> None:
    row_id, anonymizer = f"txt_{1:032x}", OneNameAnonymizer()
    result = handlers.anonymize_row(anonymizer, world.subjects, row_id, ("Who is Okafor?", "Okafor."), Labels())
    assert result.texts == ("Who is Ward?", "Ward.")
    for wrong, texts in ((f"doc_{1:032x}", ("a",)), ("txt_1", ("a",)), (row_id, ("x" * 600_000, "y" * 600_000))):
        with pytest.raises(InvalidArgument):
            handlers.anonymize_row(anonymizer, world.subjects, wrong, texts, Labels())
    assert Rows(world.engine, OCCURRENCES, Row).values(OCCURRENCES.c.document_id) == [row_id]


def test_reidentification_is_audited_before_it_is_answered(world: World) -> None:
    world.vault.issue("IBAN", "k", "GB33BUKB20201555555555", lambda _: "GB00")

    def reidentify(surrogate: str, purpose: str = "court order 12") -> str:
        call = {"caller": "key_1", "entity_type": "IBAN", "surrogate": surrogate, "purpose": purpose}
        return handlers.reidentify(world.vault, SqlAuditLog(world.engine), **call)

    assert reidentify("GB00") == "GB33BUKB20201555555555"
    with pytest.raises(NotFound):
        reidentify("GB99")
    with pytest.raises(InvalidArgument):
        reidentify("GB00", "why")
    assert world.audited() == [("key_1", "IBAN", "GB00", "court order 12"), ("key_1", "IBAN", "GB99", "court order 12")]


def test_finding_and_lifting_a_subject_is_audited_without_the_subject(world: World) -> None:
    call = {"caller": "key_1", "subject": "Sarah Jenkins"}
    audit, subjects = SqlAuditLog(world.engine), world.subjects
    with pytest.raises(NotFound, match="NOT_SUPPRESSED"):
        handlers.lift_subject(subjects, audit, **call)
    handlers.resolve_subject(subjects, audit, dry_run=True, **call)
    assert not handlers.describe_subject(subjects, world.ledger, audit, **call).suppressed
    handlers.resolve_subject(subjects, audit, dry_run=False, **call)
    assert handlers.describe_subject(subjects, world.ledger, audit, **call).suppressed
    handlers.lift_subject(subjects, audit, **call)
    assert not subjects.describe("Sarah Jenkins")[2]
    assert len(world.audited()) == 6 and "Jenkins" not in str(world.audited())
    nobody = {"caller": "key_1", "subject": " "}
    with pytest.raises(InvalidArgument):
        handlers.resolve_subject(subjects, audit, dry_run=False, **nobody)
    with pytest.raises(InvalidArgument):
        handlers.lift_subject(subjects, audit, **nobody)


SPANS = (Span(SpanKind.PAGE, 4, 0, 3), Span(SpanKind.SECTION, 1, 1, 3, 2))
STORED = Ref("s3://corpus/documents/cd", "cd", 3)
PASSED = Passed(
    replace(INGESTED, spans=SPANS), STORED, 3, {"PERSON": 2}, "policy", 1, "en", SPANS[1:], "detectors", ("sv",)
)


def passed(document_id: str, sequence: int, uri: str, policy: str = "policy") -> Passed:
    ingested = replace(INGESTED, document_id=document_id, sequence=sequence)
    return replace(PASSED, ingested=ingested, text=replace(STORED, uri=uri), policy_digest=policy)


def test_the_first_outcome_of_a_version_stays_and_is_read_as_it_was_recorded(world: World) -> None:
    ledger, unreadable = world.ledger, RefusedDocument(replace(INGESTED, sequence=2), "hint", 2)
    assert [ledger.start("doc_1", number) for number in (1, 1, 2)] == [1, 2, 1]
    ledger.forget_starts("doc_1", 2)
    assert ledger.start("doc_1", 2) == 1
    assert ledger.record(PASSED) == ledger.find("doc_1", 1) == PASSED
    assert ledger.record(unreadable) == ledger.find("doc_1", 2) == unreadable
    assert ledger.record(replace(PASSED, time_ms=9)) == PASSED
    assert ledger.start("doc_1", 1) == 1 and ledger.find("doc_1", 3) is None
    ledger.forget_starts("doc_1", 1)
    assert ledger.start("doc_1", 1) == 1


def test_counts_are_those_of_the_newest_versions_that_passed(world: World) -> None:
    ledger, labels = world.ledger, Labels("wiki", "risk", "internal")
    for outcome in (
        passed("doc_1", 1, "s3://c/1", "old"),
        passed("doc_1", 2, "s3://c/2"),
        passed("doc_2", 1, "s3://c/3", "old"),
    ):
        ledger.record(outcome)
    ledger.record(RefusedDocument(replace(INGESTED, document_id="doc_3"), "hint", 2))
    assert ledger.count_findings() == [FindingCount(labels, "PERSON", 2, 4)]
    assert (ledger.count_outdated("policy", "detectors"), ledger.count_outdated("policy", "others")) == (1, 2)
    newest = ledger.newest(["doc_2", "doc_1", "doc_3"])
    assert {document_id: outcome.text.uri for document_id, outcome in newest.items()} == {
        "doc_1": "s3://c/2",
        "doc_2": "s3://c/3",
    }


def test_texts_that_another_version_has_are_not_its_own(world: World) -> None:
    ledger = world.ledger
    for document_id, sequence, uri in (
        ("doc_1", 1, "s3://c/1"),
        ("doc_1", 2, "s3://c/2"),
        ("doc_1", 3, "s3://c/1"),
        ("doc_2", 1, "s3://c/2"),
    ):
        ledger.record(passed(document_id, sequence, uri))
    assert [ref.uri for ref in ledger.texts_of("doc_1")] == ["s3://c/1"]
    assert ledger.texts_before("doc_1", 3) == []
    assert (ledger.forget("doc_1", 3), ledger.forget("doc_2"), ledger.forget("doc_2")) == (2, 1, 0)
    assert ledger.find("doc_1", 2) is None and ledger.find("doc_1", 3) is not None
