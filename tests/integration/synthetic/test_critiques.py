"""Comments that teach: from a judgement to a revision, a pair and a row, over PostgreSQL and a scripted teacher."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select, text

from services.registry.bootstrap import MIGRATIONS as REGISTRY_MIGRATIONS
from services.registry.domain import GivenJudgement
from services.registry.handlers.judgements import record_judgement
from services.synthetic import handlers
from services.synthetic.adapters import tables
from services.synthetic.adapters.datasets import SqlDatasets
from services.synthetic.adapters.erasures import SqlHoldings
from services.synthetic.adapters.synthesis_rows import SYNTHESIS
from services.synthetic.adapters.tables import synthesis_answers
from services.synthetic.erasures import DatasetEraser
from services.synthetic.synthesis.handlers import CritiqueWaits
from services.synthetic.synthesis_domain import SampleState, SynthesisState, TokenCount
from services.synthetic.synthesis_rpc import SynthesisServicer
from tailor.api.events.v1 import drafts_pb2
from tailor.api.synthetic.v1 import synthesis_pb2 as pb
from tailor.errors import Aborted, FailedPrecondition, InvalidArgument, NotFound, Reason
from tailor.events.erased import Erased
from tailor.jobs import add_job
from tailor.rpc.auth import Caller, set_caller
from tailor.sql import connect, migrate, transaction
from tailor.values import DatasetKind, RowPolicy
from tests.critiques import CRITIC, HELD_OUT, TRAIN, CritiqueHouse, answer_of, part, revise
from tests.integration.test_judging import World as RegistryWorld
from tests.integration.test_judging import anonymize
from tests.jobs import make_due, run_due
from tests.synthesis import Reply, scripted
from tests.synthetic import read_splits

pytestmark = pytest.mark.integration

AT_ONCE = CritiqueWaits(0, 0)


def house_at(engine: Engine, url: str, **changes: Any) -> CritiqueHouse:
    values: dict[str, Any] = {"specialist": CRITIC, "parallel": 2} | changes
    return CritiqueHouse(engine, url, **values)


def test_a_comment_becomes_a_pair_and_a_row_with_its_judgement(engine: Engine) -> None:
    prompt = TRAIN[0]
    with scripted(revise) as endpoint:
        house = house_at(engine, endpoint.url)
        judgement_id = house.judge_drafts(prompt)
        for other in (*TRAIN[1:12], *HELD_OUT[:5]):
            house.judge_drafts(other, comment="")
        synthesis = house.critique()
    assert (synthesis.state, synthesis.reason, synthesis.spec.target) == (
        SynthesisState.SUCCEEDED,
        Reason.TARGET_REACHED,
        1,
    )
    asked, judged = endpoint.requests
    assert part(asked, "COMMENT") == "Close more kindly." and part(asked, "DRAFT") == answer_of(prompt)
    assert part(asked, "REQUEST") == f"Write about {prompt}." and "Short sentences." in asked["messages"][-1]["content"]
    assert part(judged, "REVISION") == f"{answer_of(prompt)} Kindly yours."
    assert judged["response_format"]["json_schema"]["schema"]["required"] == ["follows", "keeps_facts"]
    # Two answers, 150 tokens each, in the synthesis's own ledger.
    assert synthesis.use.teacher.used == TokenCount(200, 100) and synthesis.use.answers == 2

    house.define(replace(house.specialist, policy=replace(house.specialist.policy, min_ranked_prompts=8)))
    built = handlers.build_dataset(house.app, "reports", "pairs", DatasetKind.PREFERENCE).dataset
    (pair,) = [row for row in read_splits(house.store, built.digest)["train"] if row["task"] == "critique"]
    assert (pair["chosen"], pair["rejected"]) == (f"{answer_of(prompt)} Kindly yours.", answer_of(prompt))
    assert (pair["judgement_ids"], pair["made_by"]) == ([judgement_id], "teacher:wise")
    assert built.pairs.critiques == 1 and built.judgements == 17

    (row,) = house.rows.rows(house.specialist)
    assert row.messages == (("user", f"Write about {prompt}."), ("assistant", f"{answer_of(prompt)} Kindly yours."))
    lineage = dict(row.lineage)
    assert (lineage["judgement_id"], lineage["draft_id"]) == (judgement_id, f"drf_{prompt}_good")
    assert house.rows.origin(house.specialist).draft_adapters == {"a" * 64}


def test_nothing_is_made_twice(engine: Engine) -> None:
    with scripted(revise) as endpoint:
        house = house_at(engine, endpoint.url)
        house.judge_drafts(TRAIN[0])
        first = house.critique(request_id="once")
        house.judge_drafts(TRAIN[0])
        assert house.create(request_id="once", task="critique", instruction="", target=100) == first.synthesis_id
        with house.comments.starting("reports"), pytest.raises(Aborted, match="being created"):
            house.critique()
        with pytest.raises(FailedPrecondition, match="NO_COMMENTS") as refused:
            house.critique()
        assert "1 are answered" in str(refused.value)
        # Another replica, or a restart after a kill, finds every answer.
        with transaction(engine) as connection:
            connection.execute(text("UPDATE syntheses SET state = 'running'"))
            add_job(connection, tables.jobs, SYNTHESIS, first.synthesis_id)
        assert run_due(house.jobs)
    assert len(endpoint.requests) == 2 and len(house.pairs()) == 1


@pytest.mark.parametrize(
    ("revision", "verdict", "reason"),
    [
        ("", (True, True), "off_format"),
        (answer_of(TRAIN[0]), (True, True), "unchanged"),
        (f"{answer_of(TRAIN[0])} It costs 13.", (True, True), "unfaithful"),
        (answer_of(TRAIN[0]).replace("12 euros", "little"), (True, True), "lost_facts"),
        ("Yes.", (True, True), "too_short"),
        (f"{answer_of(TRAIN[0])} Kindly. " * 30, (True, True), "too_long"),
        (f"{answer_of(TRAIN[0])} Kindly.", (False, True), "comment_not_met"),
        (f"{answer_of(TRAIN[0])} Kindly.", (True, False), "changed_facts"),
        (f"{answer_of(TRAIN[0])} Kindly.", None, "not_judged"),
    ],
)
def test_refused_revisions_are_counted_by_reason_and_teach_nothing(
    engine: Engine, revision: str, verdict: tuple[bool, bool] | None, reason: str
) -> None:
    def script(number: int, body: dict[str, Any]) -> Reply:
        if part(body, "REVISION"):
            names = ("follows", "keeps_facts")
            return Reply(json.dumps(dict(zip(names, verdict, strict=True))) if verdict else "Yes!")
        return Reply(json.dumps({"text": revision}))

    with scripted(script) as endpoint:
        house = house_at(engine, endpoint.url)
        house.judge_drafts(TRAIN[0])
        synthesis = house.critique()
        assert synthesis.refusals == {reason: 1} and synthesis.reason == Reason.TARGET_NOT_REACHED
        assert house.pairs() == [] and list(house.rows.rows(house.specialist)) == []
        counts = house.comments.count(house.specialist)
        assert (counts.total, dict(counts.refusals), counts.waiting) == (1, {reason: 1}, 0)


def test_a_comment_may_change_the_facts_that_it_names(engine: Engine) -> None:
    def correct(number: int, body: dict[str, Any]) -> Reply:
        answer = revise(number, body)
        return Reply(answer.content.replace("12 euros", "15 euros")) if part(body, "COMMENT") else answer

    with scripted(correct) as endpoint:
        house = house_at(engine, endpoint.url)
        house.judge_drafts(TRAIN[0], comment="It costs 15, not 12.")
        assert house.critique().samples == {SampleState.ACCEPTED: 1}
    assert "15 euros" in house.pairs()[0]["text"]


def test_only_comments_that_can_teach_are_answered(engine: Engine) -> None:
    with scripted(revise) as endpoint:
        house = house_at(engine, endpoint.url)
        house.judge_drafts(TRAIN[0])
        both_bad = house.judge_drafts(
            TRAIN[1], ranking=[], equal_drafts=[f"drf_{TRAIN[1]}_good", f"drf_{TRAIN[1]}_bad"]
        )
        house.judge_drafts(HELD_OUT[0])
        house.judge_drafts(TRAIN[2], comment="")
        base = house.draft(TRAIN[3], "base", specialist="")
        house.judge_drafts(TRAIN[3], ranking=[f"drf_{TRAIN[3]}_good", base])
        house.retract(house.judge_drafts(TRAIN[4]))
        counts = house.comments.count(house.specialist)
        assert (counts.total, counts.waiting, counts.held_out, counts.without_texts) == (4, 2, 1, 1)
        assert house.critique().samples == {SampleState.ACCEPTED: 2}
    assert {entry["judgement"] for entry in house.pairs()} == {f"jdg_{TRAIN[0]}", both_bad}
    # A larger share of held-out prompts takes a row away from train.
    assert len(list(house.rows.rows(house.specialist))) == 2
    wider = replace(house.specialist, rows=RowPolicy(held_out_percent=100))
    assert list(house.rows.rows(wider)) == []


def test_a_judge_model_gives_the_verdict_if_there_is_one(engine: Engine) -> None:
    def strict(number: int, body: dict[str, Any]) -> Reply:
        return Reply(json.dumps({"follows": False, "keeps_facts": True}))

    with scripted(revise) as endpoint, scripted(strict) as judge:
        house = house_at(engine, endpoint.url, judge_url=judge.url)
        house.judge_drafts(TRAIN[0])
        synthesis = house.critique()
    assert synthesis.refusals == {"comment_not_met": 1} and synthesis.judge == "strict"
    assert (len(endpoint.requests), len(judge.requests)) == (1, 1)
    assert synthesis.use.judge.used == TokenCount(100, 50)


def test_a_budget_refuses_before_it_is_passed_and_the_comment_still_waits(engine: Engine) -> None:
    with scripted(revise) as endpoint:
        house = house_at(engine, endpoint.url, parallel=1)
        for prompt in TRAIN[:6]:
            house.judge_drafts(prompt)
        synthesis = house.critique(budget_tokens=3_000, max_answer_tokens=1_000)
        assert synthesis.reason == Reason.BUDGET_SPENT and synthesis.use.teacher.spent.total <= 3_000
        counts = house.comments.count(house.specialist)
        assert 1 <= counts.accepted < 6 == counts.accepted + counts.waiting and not counts.refusals
        house.critique()
    assert house.comments.count(house.specialist).accepted == 6 == len(house.pairs())


def test_a_judgement_that_is_taken_back_takes_its_revision_along(engine: Engine) -> None:
    with scripted(revise) as endpoint:
        house = house_at(engine, endpoint.url)
        judgement_id, kept = house.judge_drafts(TRAIN[0]), house.judge_drafts(TRAIN[1])
        house.critique()
        before = house.rows.fingerprint(house.specialist)
        house.retract(judgement_id)
        house.judge_drafts(TRAIN[0])
    assert [entry["judgement"] for entry in house.pairs()] == [kept]
    assert house.rows.fingerprint(house.specialist) != before
    with transaction(engine) as connection:
        answers = connection.scalars(select(synthesis_answers.c.document_ids)).all()
    assert len(answers) == 2 and all(kept in ids for ids in answers)


def test_an_erased_adapters_drafts_take_their_revisions_along(engine: Engine) -> None:
    with scripted(revise) as endpoint:
        house = house_at(engine, endpoint.url, documents=12)
        house.judge_drafts(TRAIN[0])
        house.critique()
    house.app = replace(house.app, limits=replace(house.app.limits, min_train_rows=1, min_held_out_rows=0))
    built = handlers.build_dataset(house.app, "reports", "rows").dataset
    assert built.draft_adapters == ("a" * 64,)
    assert "critique" in {row["task"] for row in read_splits(house.store, built.digest)["train"]}
    eraser = DatasetEraser(house.app, SqlHoldings(engine), SqlDatasets(engine), lambda key: 0)
    eraser.forget(Erased("doc_unknown", "ers_1", retired=("a" * 64,)))
    assert house.pairs() == [] and list(house.rows.rows(house.specialist)) == []
    with pytest.raises(NotFound):
        house.store.read("datasets", f"{built.digest}/manifest.json")
    again = handlers.build_dataset(house.app, "reports", "again").dataset
    assert again.draft_adapters == () and "critique" not in {
        row["task"] for row in read_splits(house.store, again.digest)["train"]
    }


def test_critiques_start_by_themselves_within_the_tokens_of_a_month(engine: Engine) -> None:
    with scripted(revise) as endpoint:
        house = house_at(engine, endpoint.url, parallel=1, waits=AT_ONCE)
        for prompt in TRAIN[:5]:
            house.judge_drafts(prompt)
        assert house.commands.start_critiques(house.specialist) is None
        paid = replace(house.specialist, rows=RowPolicy(critique_tokens_per_month=5_500))
        assert house.commands.start_critiques(replace(paid, use_teacher=False)) is None
        house.define(paid)
        started = house.commands.start_critiques(paid)
        assert started is not None and (started.spec.target, started.spec.budget_tokens) == (5, 5_500)
        # One at a time; the whole budget counts until it ends.
        assert house.commands.start_critiques(paid) is None
        assert house.comments.month("reports").tokens == 5_500
        assert run_due(house.jobs)
        ended = house.commands.get(started.synthesis_id)
        assert ended.reason == Reason.BUDGET_SPENT and ended.use.teacher.spent.total <= 5_500
        # What is left pays for no further request, so nothing starts until the month or the definition changes.
        assert house.commands.start_critiques(paid) is None
        more = replace(paid, rows=RowPolicy(critique_tokens_per_month=50_000))
        again = house.commands.start_critiques(more)
        assert again is not None and again.spec.budget_tokens == 50_000 - ended.use.teacher.spent.total
        # A comment that may still be taken back waits.
        house.commands.cancel(again.synthesis_id)
        house.waits = CritiqueWaits()
        assert house.commands.start_critiques(more) is None


def test_one_job_starts_critiques_and_another_one_runs_them(engine: Engine) -> None:
    with scripted(revise) as endpoint:
        house = house_at(engine, endpoint.url, waits=AT_ONCE)
        house.app.specialists["unpaid"] = replace(CRITIC, name="unpaid")
        house.define(replace(house.specialist, rows=RowPolicy(critique_tokens_per_month=100_000)))
        jobs = house.jobs
        jobs.arm()
        for prompt in TRAIN[:2]:
            house.judge_drafts(prompt)
            make_due(engine, tables.jobs)
            while run_due(jobs):
                """One job adds another."""
    assert len(house.pairs()) == 2 and len(endpoint.requests) == 4
    assert {item.spec.task for item in house.syntheses.list_page(pb.ListSynthesesRequest(), ["reports"]).items} == {
        "critique"
    }


def test_says_what_is_missing(engine: Engine) -> None:
    house = house_at(engine, "http://127.0.0.1:9/v1")
    house.judge_drafts(TRAIN[0])
    servicer = SynthesisServicer(house.commands, {"reports": house.specialist})
    set_caller(Caller("op", "ROLE_OPERATOR"))
    counts = servicer.CountComments(pb.CountCommentsRequest(specialist="reports"), None)  # type: ignore[arg-type]
    assert (counts.comments, counts.waiting, counts.teacher) == (1, 1, pb.TEACHER_STATE_READY)
    none = replace(house.commands, teacher=None)
    servicer = SynthesisServicer(none, {"reports": house.specialist})
    counts = servicer.CountComments(pb.CountCommentsRequest(specialist="reports"), None)  # type: ignore[arg-type]
    assert (counts.waiting, counts.teacher) == (1, pb.TEACHER_STATE_NONE)
    assert none.start_critiques(replace(house.specialist, rows=RowPolicy(critique_tokens_per_month=9))) is None
    set_caller(Caller("op", "ROLE_OPERATOR", specialists=frozenset({"other"})))
    with pytest.raises(NotFound, match="UNKNOWN_SPECIALIST"):
        servicer.CountComments(pb.CountCommentsRequest(specialist="reports"), None)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="INVALID_SYNTHESIS") as invalid:
        house.create(task="critique", seeds=3, min_mark=4)
    assert set(invalid.value.field_violations or {}) == {"seeds", "min_mark"}


def test_a_comment_flows_from_the_registry_to_both_datasets(engine: Engine, database_url: str, tmp_path: Path) -> None:
    with transaction(engine) as connection:
        connection.execute(text("CREATE SCHEMA registry"))
    catalogue = connect(f"{database_url}?options=-csearch_path%3Dregistry")
    migrate(catalogue, REGISTRY_MIGRATIONS)
    registry = RegistryWorld(catalogue, tmp_path)
    try:
        _play(engine, registry)
    finally:
        registry.server.stop(0)
        catalogue.dispose()


def _play(engine: Engine, registry: RegistryWorld) -> None:
    with scripted(revise) as endpoint:
        house = house_at(engine, endpoint.url, specialist=replace(CRITIC, name="memos"))
        ids = [house.draft(TRAIN[0], side, specialist="memos") for side in ("good", "bad")]
        for draft_id in ids:
            registry.draft(draft_id, "memos", TRAIN[0], "key_1")
        judgement = record_judgement(
            registry.begin,
            lambda comment, labels: anonymize(comment, labels).replace("Ines", "Ngozi"),
            GivenJudgement((ids[0], ids[1]), comment="Close more kindly, Ines."),
            judgement_id="jdg_1",
            may_use=lambda name: True,
            expert_id="exp_1",
        )
        # At least once is also twice.
        _deliver(registry, house)
        _deliver(registry, house)
        house.critique()
    assert part(endpoint.requests[0], "COMMENT") == "Close more kindly, Ngozi." == judgement.comment
    (row,) = house.rows.rows(house.specialist)
    assert [entry["judgement"] for entry in house.pairs()] == ["jdg_1"] == [dict(row.lineage)["judgement_id"]]
    with registry.begin() as tx:
        specialist = tx.specialists.find(name="memos")
        assert specialist is not None
        tx.judgements.retract(judgement, specialist)
    _deliver(registry, house)
    assert house.pairs() == [] and list(house.rows.rows(house.specialist)) == []


def _deliver(registry: RegistryWorld, house: CritiqueHouse) -> None:
    """Deliver everything that the registry has published so far, from the beginning."""
    while registry.outbox.relay():
        pass
    for message in registry.producer.messages("judgement.recorded.v1"):
        assert isinstance(message, drafts_pb2.JudgementRecorded)
        house.record(message)
