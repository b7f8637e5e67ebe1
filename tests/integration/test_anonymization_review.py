"""A review over PostgreSQL: from documents to a sample, decisions, the estimate, terms, a signed statement, and erasure."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from unittest.mock import Mock

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Engine, text

from services.anonymization.domain import (
    Action,
    Anonymized,
    Change,
    Disagreement,
    DocumentText,
    Ingested,
    Passed,
    Policy,
)
from services.anonymization.review import handlers
from services.anonymization.review.domain import PassageKind, PassageMark, PassageView, ResidualBound, ResidualLimit
from services.anonymization.review.handlers import Review
from services.anonymization.review_rpc import ReviewServicer
from tailor.api.anonymization.v1 import review_pb2
from tailor.errors import FailedPrecondition, InvalidArgument, NotFound
from tailor.rpc.auth import Caller, set_caller
from tailor.rpc.identity import Identity
from tailor.values import Labels
from tests.barrier import MIGRATIONS, BarrierHouse
from tests.conftest import migrated
from tests.unit.anonymization.fakes import INGESTED

pytestmark = pytest.mark.integration

ADA = Caller("key", "Ada", key_id="key_1")
LEFT = "gregor herrmann"
FILLER = "The operating rhythm continues without any change this quarter. "
POLICY = Policy("p" * 64, {"PERSON": Action.SURROGATE, "CLIENT": Action.SURROGATE, "DATE_TIME": Action.KEEP})


class World(BarrierHouse):
    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.review = Review(self.vault, self.terms, self.corpus, policy=lambda: POLICY, allow_terms=Mock())

    def publish(
        self,
        number: int,
        body: str,
        *,
        source: str = "wiki",
        sequence: int = 1,
        doubt: str = "",
        rules_only: tuple[str, ...] = (),
    ) -> Ingested:
        """A document that passes: Okafor becomes Ward, everything else is left."""
        ingested = replace(INGESTED, document_id=f"doc_{number}", sequence=sequence, labels=Labels(source))
        changes = tuple(
            Change(match.start(), match.end(), "PERSON", Action.SURROGATE, "Ward")
            for match in re.finditer("Okafor", body)
        )
        disagreements = tuple(
            Disagreement(match.start(), match.end(), "PERSON", ("spacy",))
            for match in (re.finditer(doubt, body) if doubt else ())
        )
        clean = DocumentText(body.replace("Okafor", "Ward"))
        result = Anonymized(
            (clean.text,), {}, (changes,), disagreements=(disagreements,), rules_only_languages=rules_only
        )
        ref = self.corpus.write(clean)
        self.barrier.recorder.record(ingested, clean, result, "en")
        passed = Passed(ingested, ref, len(clean.text), {}, "p", 1, "en", rules_only_languages=rules_only)
        self.ledger.record(passed)
        return ingested

    def sample(self, size: int = 400, minimum: int = 0, *, again: bool = False) -> int:
        _, drawn = handlers.start_sample(
            self.review, "key_1", size=size, min_per_stratum=minimum, seed=7, replace=again
        )
        return len(drawn.passages)

    def next(self, reviewer: str = "key_1", kind: PassageKind | None = None) -> PassageView:
        view = handlers.next_passage(self.review, reviewer, kind)
        assert view is not None
        return view

    def decide(self, view: PassageView, *marks: PassageMark, reviewer: str = "key_1", skip: bool = False) -> None:
        handlers.decide_passage(self.review, reviewer, view.queued.passage_id, marks, skip=skip)

    def mark_all(self) -> None:
        """Review everything that waits of the sample, as a person who finds every name."""
        while (view := handlers.next_passage(self.review, "key_1", PassageKind.SAMPLE)) is not None:
            self.decide(view, *find(view))

    def rows(self) -> str:
        """Everything that the review's tables hold."""
        tables = ("documents", "samples", "strata", "passages", "marks", "terms", "combinations")
        with self.engine.connect() as connection:
            return str([connection.execute(text(f"SELECT * FROM review_{name}")).all() for name in tables])


def find(view: PassageView, entity_type: str = "PERSON") -> list[PassageMark]:
    return [
        PassageMark(match.start(), match.end(), entity_type)
        for match in re.finditer(LEFT, view.text)
        if view.start <= match.start() < view.end
    ]


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with migrated(database_url, MIGRATIONS) as engine:
        yield World(engine)


def test_the_estimate_of_a_whole_corpus_is_its_share(world: World) -> None:
    for number in range(40):
        # 10 passages each; every tenth document has a name left, in one of them.
        world.publish(number, FILLER * 62 + (LEFT if number % 10 == 0 else ""))
    assert world.sample(5_000) == 400
    world.mark_all()
    report = handlers.get_report(world.review, ())
    assert report.overall.reviewed == 400 and report.overall.any is not None
    assert (report.overall.any.left, report.overall.any.share) == (4, 0.01)
    assert report.overall.values == {"PERSON": 4} and report.overall.types["PERSON"].left == 4
    assert not handlers.get_report(world.review, ("mail",)).strata


def test_estimates_are_by_source_and_language_and_weighted_overall(world: World) -> None:
    for number in range(30):
        world.publish(number, FILLER * 60)
    world.publish(99, f"{LEFT} wrote. " * 40, source="mail")
    world.sample(60, 2)
    world.mark_all()
    report = handlers.get_report(world.review, ())
    shares = {item.stratum.source: item.any.share for item in report.strata if item.any}
    assert shares == {"wiki": 0.0, "mail": 1.0}
    mail = next(item.stratum for item in report.strata if item.stratum.source == "mail")
    assert report.overall.any is not None
    assert report.overall.any.share == pytest.approx(mail.passages / report.overall.stratum.passages)


def test_documents_that_were_masked_by_rules_only_are_counted_by_language(world: World) -> None:
    world.publish(1, FILLER, rules_only=("sv",))
    world.publish(2, FILLER, rules_only=("fi", "sv"))
    world.publish(3, FILLER, source="mail", rules_only=("fi",))
    world.publish(4, FILLER)
    assert handlers.get_report(world.review, ()).rules_only_documents == {"fi": 2, "sv": 2}
    assert handlers.get_report(world.review, ("wiki",)).rules_only_documents == {"fi": 1, "sv": 2}
    world.publish(2, FILLER, sequence=2)
    assert handlers.get_report(world.review, ("wiki",)).rules_only_documents == {"sv": 1}
    world.sample(4)
    world.mark_all()
    body = handlers.statement_body(handlers.get_report(world.review, ()), (), "p", datetime.now(UTC))
    assert json.loads(body)["documents_masked_by_rules_only"] == {"fi": 1, "sv": 1}


def test_a_reviewer_sees_surrogates_apart_from_what_was_left(world: World) -> None:
    world.publish(1, f"Ms Okafor asked {LEFT} about it. " + FILLER * 20, doubt=LEFT)
    world.sample(1)
    view = world.next(kind=PassageKind.DISAGREEMENT)
    kinds = {view.text[item.start : item.end]: item.kind.value for item in view.stretches}
    assert kinds == {"Ward": "replaced", LEFT: "disagreement"} and view.replaced_known
    assert view.entity_types[0] == "PERSON" and "DATE_TIME" not in view.entity_types
    ward = view.text.index("Ward")
    with pytest.raises(InvalidArgument, match="INVALID_MARKS"):
        world.decide(view, PassageMark(ward, ward + 4, "PERSON"))


def test_what_is_marked_is_personal_from_then_on_and_stored_as_a_hash_only(world: World) -> None:
    world.publish(1, f"Can you ask {LEFT} about the invoice?", doubt=LEFT)
    view = world.next()
    assert view.queued.kind is PassageKind.DISAGREEMENT
    world.decide(view, *find(view))
    personal, never = world.terms.search("Dear Gregor Herrmann, thanks")
    assert [item.entity_type for item in personal] == ["PERSON"] and not never
    assert list(world.review.documents.outdated(world.terms.digest)) == ["doc_1"]
    # Decisions about disagreements do not count for the estimate.
    assert handlers.get_report(world.review, ()).overall.any is None
    world.publish(2, f"Ask {LEFT} again.", doubt=LEFT)
    view = world.next()
    world.decide(view, *find(view, ""))
    assert world.terms.search(LEFT) == ([], [(0, len(LEFT))])
    assert "gregor" not in world.rows() and "invoice" not in world.rows()
    handlers.drop_term(world.review, "key_1", "Gregor Herrmann")
    assert world.terms.search(LEFT) == ([], [])
    with pytest.raises(NotFound, match="UNKNOWN_TERM"):
        handlers.drop_term(world.review, "key_1", "Gregor Herrmann")


def test_a_passage_is_reserved_skipped_decided_once_and_undone(world: World) -> None:
    world.publish(1, FILLER * 12 + LEFT)
    world.sample(2)
    first, other = world.next("key_1"), world.next("key_2")
    assert first.queued.passage_id != other.queued.passage_id
    assert world.next("key_1").queued == first.queued
    assert handlers.next_passage(world.review, "key_3", None) is None
    world.decide(first, skip=True)
    assert world.next("key_1").queued == first.queued
    world.decide(first, *find(first))
    with pytest.raises(FailedPrecondition, match="ALREADY_REVIEWED"):
        world.decide(first)
    world.decide(other, *find(other), reviewer="key_2")
    assert world.review.queue.count_waiting().sample == 0
    holder = "key_1" if find(first) else "key_2"
    assert world.terms.search(LEFT)[0]
    assert handlers.undo_decision(world.review, holder) == (first if holder == "key_1" else other).queued.passage_id
    assert not world.terms.search(LEFT)[0] and world.review.queue.count_waiting().sample == 1
    assert handlers.get_report(world.review, ()).overall.reviewed == 1
    with pytest.raises(NotFound, match="NOTHING_TO_UNDO"):
        handlers.undo_decision(world.review, holder)
    with pytest.raises(NotFound, match="UNKNOWN_PASSAGE"):
        handlers.decide_passage(world.review, "key_1", "psg_unknown", (), skip=False)


def test_an_unfinished_sample_is_replaced_only_on_request(world: World) -> None:
    with pytest.raises(FailedPrecondition, match="NO_PASSAGES"):
        world.sample()
    world.publish(1, FILLER * 60)
    world.sample(5)
    world.decide(world.next())
    with pytest.raises(FailedPrecondition, match="SAMPLE_UNFINISHED"):
        world.sample(5)
    world.sample(5, again=True)
    report = handlers.get_report(world.review, ())
    assert report.overall.reviewed == 0 and report.waiting.sample == 5
    with pytest.raises(InvalidArgument, match="INVALID_SAMPLE"):
        world.sample(5_001)


def test_a_new_version_replaces_what_waits_of_the_old_one(world: World) -> None:
    world.publish(1, f"Ask {LEFT}. " + FILLER * 40, doubt=LEFT)
    world.sample(4)
    world.publish(1, "Short now.", sequence=2)
    assert handlers.next_passage(world.review, "key_1", None) is None
    assert handlers.get_report(world.review, ()).passages_now == 1
    world.publish(1, f"Late {LEFT}. " + FILLER * 40, sequence=1, doubt=LEFT)
    assert handlers.get_report(world.review, ()).passages_now == 1


def test_an_erased_document_takes_its_passages_marks_and_combinations_along(world: World) -> None:
    world.publish(1, f"Ask {LEFT}, the treasurer in London. " + FILLER * 12, doubt=LEFT)
    world.sample(3)
    world.decide(world.next(), *find(world.next()))
    assert handlers.get_report(world.review, ()).rare_combinations == 1
    assert world.barrier.recorder.forget("doc_1") == 4
    assert "doc_1" not in world.rows() and world.barrier.recorder.forget("doc_1") == 0
    report = handlers.get_report(world.review, ())
    assert (report.overall.reviewed, report.rare_combinations, report.waiting.sample) == (0, 0, 0)


def test_a_passage_whose_text_is_gone_leaves_the_queue(world: World) -> None:
    world.publish(1, FILLER)
    world.sample(1)
    outcome = world.ledger.find("doc_1", 1)
    assert isinstance(outcome, Passed)
    world.corpus.delete(outcome.text)
    assert handlers.next_passage(world.review, "key_1", None) is None and world.review.queue.count_waiting().sample == 0


def test_combinations_that_five_documents_share_are_not_rare(world: World) -> None:
    for number in range(5):
        world.publish(number, "Ask the treasurer in London.")
    world.publish(7, "Ask the treasurer in Leeds.")
    items = world.review.documents.list_rare(review_pb2.ListRareCombinationsRequest()).items
    assert [(item.document_id, item.entity_types, item.documents) for item in items] == [
        ("doc_7", ("JOB_TITLE", "LOCATION"), 1)
    ]
    view = handlers.get_passage(world.review, "doc_7", items[0].number)
    assert "Leeds" in view.text and not view.queued.passage_id
    with pytest.raises(NotFound, match="UNKNOWN_PASSAGE"):
        handlers.get_passage(world.review, "doc_7", 9)
    assert "leeds" not in world.rows().lower()


def test_a_limit_refuses_until_the_estimate_meets_it(world: World) -> None:
    world.publish(1, FILLER * 60)
    handlers.check_residual(world.review, ())
    world.review.limit = ResidualLimit(0.2, ResidualBound.POINT)
    with pytest.raises(FailedPrecondition, match="RESIDUAL_UNKNOWN"):
        handlers.check_residual(world.review, ())
    world.sample(400)
    world.mark_all()
    handlers.check_residual(world.review, ())
    handlers.check_residual(world.review, ("wiki",))
    with pytest.raises(FailedPrecondition, match="RESIDUAL_UNKNOWN"):
        handlers.check_residual(world.review, ("mail",))
    assert handlers.get_report(world.review, ()).refusal == ""
    world.review.limit = ResidualLimit(0.001, ResidualBound.UPPER)
    assert "over the limit of 0.1 %" in handlers.get_report(world.review, ()).refusal


def make_servicer(world: World, caller: Caller) -> Any:
    """The gRPC service without a server; its calls are made by the caller."""
    set_caller(caller)
    return ReviewServicer(world.review, Identity("anonymization", Ed25519PrivateKey.generate()))


def test_a_statement_is_signed_and_a_changed_one_is_not_valid(world: World) -> None:
    servicer = make_servicer(world, ADA)
    with pytest.raises(FailedPrecondition, match="NOTHING_REVIEWED"):
        servicer.SignStatement(review_pb2.SignStatementRequest(), None)
    world.publish(1, FILLER * 60 + LEFT)
    world.sample(400)
    world.mark_all()
    statement = servicer.SignStatement(review_pb2.SignStatementRequest(), None).statement
    body = json.loads(statement.body)
    assert body["overall"]["left"]["passages"] == 1 and body["sample"]["seed"] == 7
    assert body["policy_digest"] == POLICY.digest and "herrmann" not in statement.body
    request = review_pb2.VerifyStatementRequest(statement=statement)
    assert servicer.VerifyStatement(request, None).valid
    request.statement.body = statement.body.replace('"passages": 1', '"passages": 0', 1)
    assert not servicer.VerifyStatement(request, None).valid
    world.review.policy = lambda: replace(POLICY, digest="q" * 64)
    later = servicer.SignStatement(review_pb2.SignStatementRequest(), None).statement
    assert json.loads(later.body)["policy_digest"] == "q" * 64


def test_the_service_answers_with_passages_reports_and_combinations(world: World) -> None:
    servicer = make_servicer(world, ADA)
    for number in range(3):
        world.publish(number, f"Ms Okafor met {LEFT}, the treasurer in London. " + "Dull. " * number, doubt=LEFT)
    drawn = servicer.DrawSample(review_pb2.DrawSampleRequest(size=3, seed=7), None)
    assert (drawn.drawn, drawn.passages, drawn.documents) == (3, 3, 3)
    kind = review_pb2.PASSAGE_KIND_SAMPLE
    answer = servicer.NextPassage(review_pb2.NextPassageRequest(kind=kind), None)
    passage, start = answer.passage, answer.passage.text.index(LEFT)
    assert passage.kind == kind and (answer.waiting.sample, answer.waiting.disagreement) == (3, 3)
    assert passage.text[passage.stretches[0].start : passage.stretches[0].end] == "Ward" and passage.replaced_known
    mark = review_pb2.PassageMark(start=start, end=start + len(LEFT), entity_type="PERSON")
    request = review_pb2.DecidePassageRequest(passage_id=passage.passage_id, marks=[mark])
    servicer.DecidePassage(request, None)
    report = servicer.GetResidualReport(review_pb2.GetResidualReportRequest(), None)
    assert (report.overall.reviewed, report.overall.any.left, report.overall.any.share) == (1, 1, 1.0)
    assert report.strata[0].source == "wiki" and report.strata[0].types["PERSON"].high == 1.0
    assert report.sample.seed == 7 and report.sample.sample_id == drawn.sample_id and not report.HasField("limit")
    first = servicer.ListRareCombinations(review_pb2.ListRareCombinationsRequest(page_size=2), None)
    rest = servicer.ListRareCombinations(
        review_pb2.ListRareCombinationsRequest(page_size=2, page_token=first.next_page_token), None
    )
    assert len(first.combinations) == 2 and len(rest.combinations) == 1 and not rest.next_page_token
    item = rest.combinations[0]
    shown = servicer.GetPassage(
        review_pb2.GetPassageRequest(document_id=item.document_id, number=item.number), None
    ).passage
    assert "treasurer" in shown.text and shown.kind == review_pb2.PASSAGE_KIND_UNSPECIFIED
    assert servicer.UndoDecision(review_pb2.UndoDecisionRequest(), None).passage_id == passage.passage_id
    servicer.CheckResidual(review_pb2.CheckResidualRequest(sources=["wiki"]), None)


def test_only_the_console_names_the_reviewer(world: World) -> None:
    world.publish(1, FILLER)
    world.sample(1)
    servicer = make_servicer(world, ADA)
    servicer.NextPassage(review_pb2.NextPassageRequest(reviewer="key_of_another"), None)
    set_caller(Caller("service", "console"))
    assert not servicer.NextPassage(review_pb2.NextPassageRequest(reviewer="key_2"), None).HasField("passage")
    assert servicer.NextPassage(review_pb2.NextPassageRequest(reviewer="key_1"), None).HasField("passage")
