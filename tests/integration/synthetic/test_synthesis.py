"""Syntheses over PostgreSQL and a real OpenAI-style endpoint with scripted answers."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select, text, update

from services.synthetic.adapters import tables
from services.synthetic.adapters.admitted_origins import SqlOrigins
from services.synthetic.adapters.synthesis_rows import SYNTHESIS, forget_seed
from services.synthetic.adapters.tables import syntheses, synthesis_answers, synthesis_rows
from services.synthetic.synthesis.handlers import WAKING_REASONS, SynthesisCommands
from services.synthetic.synthesis.runner import read_seeds
from services.synthetic.synthesis.tasks import PROMPT_VERSION
from services.synthetic.synthesis_domain import (
    ModelRole,
    SampleState,
    SeedExample,
    SynthesisSample,
    SynthesisSpec,
    SynthesisState,
    TokenCount,
    TokenPrice,
    TokenReservation,
)
from services.synthetic.synthesis_rpc import SynthesisServicer
from tailor.api.common.v1 import common_pb2
from tailor.api.synthetic.v1 import synthesis_pb2 as pb
from tailor.errors import FailedPrecondition, InvalidArgument, NotFound, Reason, TailorError
from tailor.jobs import JobLost, add_job
from tailor.rpc.auth import Caller, set_caller
from tailor.sql import transaction
from tailor.values import Selection
from tests.jobs import end_leases, run_due
from tests.synthesis import (
    Reply,
    SynthesisHouse,
    distinct,
    good,
    passage,
    rows_json,
    scripted,
)
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[3]
MIGRATIONS = ROOT / "services" / "synthetic" / "adapters" / "migrations"


def stored_rows(engine: Engine, synthesis_id: str) -> list[dict[str, Any]]:
    with transaction(engine) as connection:
        query = select(synthesis_rows).where(synthesis_rows.c.synthesis_id == synthesis_id)
        return [dict(row._mapping) for row in connection.execute(query)]


def list_samples(house: SynthesisHouse, synthesis_id: str, state: SampleState | None) -> list[SynthesisSample]:
    filters = {"state": state.value} if state else {}
    request = pb.ListSamplesRequest(synthesis_id=synthesis_id, query=common_pb2.ListQuery(filters=filters))
    return house.syntheses.list_samples(request).items


def test_makes_the_target_with_lineage_and_serves_it_to_builds(engine: Engine) -> None:
    with scripted(good) as endpoint:
        house = SynthesisHouse(engine, endpoint.url)
        synthesis = house.run(target=6, seeds=2, attributes=())

    assert (synthesis.state, synthesis.reason) == (SynthesisState.SUCCEEDED, Reason.TARGET_REACHED)
    assert synthesis.samples == {SampleState.ACCEPTED: 6}
    # No request beyond the target: every one gave its row.
    assert len(endpoint.requests) == 6 and set(endpoint.keys) == {"Bearer secret-key"}
    assert (synthesis.use.answers, synthesis.use.teacher.used) == (6, TokenCount(600, 300))
    rows = list(house.rows.rows(house.specialist))
    assert len(rows) == 6
    assert {row.made_by for row in rows} == {"teacher:wise"} and {row.task for row in rows} == {"risk-assessment"}
    assert {row.system_prompt for row in rows} == {house.specialist.system_prompt}
    lineage = dict(rows[0].lineage)
    assert lineage["synthesis"] == synthesis.synthesis_id and lineage["prompt_version"] == PROMPT_VERSION
    assert set(rows[0].document_ids) == set(synthesis.spec.document_ids)
    assert all(key.startswith("doc_") for key in lineage["seeds"].split())
    # System prompt, request and answer by the tokenizer, with the template's tokens.
    assert rows[0].tokens == 5 + sum(len(content.split()) for _, content in rows[0].messages) + 3 * 4


def test_requests_go_in_parallel_and_no_further_than_the_setting(engine: Engine) -> None:
    third_is_here = threading.Event()

    def slow(number: int, body: dict[str, Any]) -> Reply:
        if number == 2:
            third_is_here.set()
        third_is_here.wait(60)
        return Reply(good(number, body).content, seconds=0.15)

    with scripted(slow) as endpoint:
        SynthesisHouse(engine, endpoint.url, parallel=3).run(target=9)
    assert endpoint.most_at_once == 3


@pytest.mark.parametrize("parallel", [1, 4])
def test_a_budget_in_tokens_is_never_passed(engine: Engine, parallel: int) -> None:
    with scripted(good) as endpoint:
        house = SynthesisHouse(engine, endpoint.url, parallel=parallel)
        synthesis = house.run(target=500, budget_tokens=6_000, max_answer_tokens=1_000)
    assert (synthesis.state, synthesis.reason) == (SynthesisState.SUCCEEDED, Reason.BUDGET_SPENT)
    spent = synthesis.use.teacher.spent.total
    assert spent == 150 * len(endpoint.requests) and spent <= 6_000
    # What is left is less than the next request can cost, and much was used.
    assert spent >= 2_000
    assert synthesis.use.teacher.reserved == TokenCount()


def test_a_budget_in_eur_is_never_passed_even_if_the_teacher_reports_no_usage(engine: Engine) -> None:
    def silent(number: int, body: dict[str, Any]) -> Reply:
        return Reply(good(number, body).content, usage=None)

    with scripted(silent) as endpoint:
        house = SynthesisHouse(engine, endpoint.url)
        synthesis = house.run(target=500, budget_eur=0.05, budget_tokens=0, max_answer_tokens=1_000)
    assert synthesis.reason == Reason.BUDGET_SPENT
    cost = synthesis.spec.cost(synthesis.use)
    # Each request counts by its worst case: 1,000 tokens at 10 EUR per million and its prompt.
    assert cost is not None and 0.03 < float(cost) <= 0.05
    assert 2 <= len(endpoint.requests) <= 4


def test_lost_answers_count_as_spent_and_refused_connections_do_not(engine: Engine) -> None:
    is_over = threading.Event()

    def slow_at_first(number: int, body: dict[str, Any]) -> Reply:
        if number == 0:
            is_over.wait(60)
        return good(number, body)

    with scripted(slow_at_first) as endpoint:
        house = SynthesisHouse(engine, endpoint.url, timeout_seconds=2, parallel=1)
        synthesis = house.run(target=2)
        is_over.set()
    assert synthesis.samples == {SampleState.ACCEPTED: 2} and len(endpoint.requests) == 3
    lost = synthesis.use.teacher.lost
    assert lost.completion == synthesis.spec.max_answer_tokens and lost.prompt > 500

    house = SynthesisHouse(engine, "http://127.0.0.1:9/v1")
    synthesis = house.run(target=2)
    assert (synthesis.state, synthesis.reason) == (SynthesisState.PAUSED, Reason.TEACHER_UNAVAILABLE)
    assert synthesis.use.teacher.spent == TokenCount() and synthesis.use.teacher.reserved == TokenCount()


def test_a_wrong_key_pauses_and_is_never_remembered(engine: Engine) -> None:
    def needs_key(number: int, body: dict[str, Any]) -> Reply:
        return good(number, body) if endpoint.keys[number] == "Bearer right" else Reply(status=401)

    with scripted(needs_key) as endpoint:
        house = SynthesisHouse(engine, endpoint.url, key="wrong-key")
        synthesis = house.run(target=3)
        assert (synthesis.state, synthesis.reason) == (SynthesisState.PAUSED, Reason.TEACHER_KEY_REFUSED)
        assert "valid key" in synthesis.message and "wrong-key" not in synthesis.message
        assert synthesis.use.teacher.spent == TokenCount() and not synthesis.refusals
        with transaction(engine) as connection:
            assert connection.scalars(select(synthesis_answers.c.number)).all() == []
        # It does not run before its time; a new process wakes it.
        assert not run_due(house.jobs)
        house.key = "right"
        house.syntheses.wake(WAKING_REASONS)
        assert run_due(house.jobs)
        synthesis = house.syntheses.get(synthesis.synthesis_id)
        assert synthesis is not None
    assert synthesis.state is SynthesisState.SUCCEEDED and synthesis.samples == {SampleState.ACCEPTED: 3}
    assert synthesis.resume_at is None and synthesis.reason == Reason.TARGET_REACHED


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply(status=403), Reason.TEACHER_KEY_REFUSED),
        (Reply(status=404), Reason.TEACHER_UNKNOWN_MODEL),
        (Reply(status=429, code="insufficient_quota"), Reason.TEACHER_QUOTA),
        (Reply(status=402), Reason.TEACHER_QUOTA),
        (Reply(status=429), Reason.TEACHER_BUSY),
        (Reply(status=500), Reason.TEACHER_UNAVAILABLE),
    ],
)
def test_a_teacher_that_serves_nothing_pauses_the_synthesis_and_resuming_goes_on(
    engine: Engine, reply: Reply, reason: Reason
) -> None:
    is_down = True

    def script(number: int, body: dict[str, Any]) -> Reply:
        return reply if is_down else good(number, body)

    with scripted(script) as endpoint:
        house = SynthesisHouse(engine, endpoint.url, parallel=2)
        synthesis = house.run(target=2)
        assert (synthesis.state, synthesis.reason) == (SynthesisState.PAUSED, reason)
        assert synthesis.use.teacher.spent == TokenCount()
        # Retries help against an overload, not against a quota.
        assert len(endpoint.requests) <= (8 if reason in (Reason.TEACHER_BUSY, Reason.TEACHER_UNAVAILABLE) else 2)
        is_down = False
        assert house.commands.resume(synthesis.synthesis_id).state is SynthesisState.QUEUED
        assert run_due(house.jobs)
        synthesis = house.commands.get(synthesis.synthesis_id)
    assert synthesis.samples == {SampleState.ACCEPTED: 2}


def test_a_pause_ends_by_itself(engine: Engine) -> None:
    with scripted(lambda number, body: Reply(status=503) if number < 4 else good(number, body)) as endpoint:
        house = SynthesisHouse(engine, endpoint.url, parallel=1, pause_seconds=0.2)
        assert house.run(target=1).state is SynthesisState.PAUSED
        wait_until(lambda: run_due(house.jobs))
        assert house.syntheses.list_page(pb.ListSynthesesRequest(), []).items[0].state is SynthesisState.SUCCEEDED


def test_waits_as_long_as_the_teacher_asks(engine: Engine) -> None:
    times: list[float] = []

    def busy(number: int, body: dict[str, Any]) -> Reply:
        times.append(time.monotonic())
        return Reply(status=429, headers={"retry-after": "1"}) if number == 0 else good(number, body)

    with scripted(busy) as endpoint:
        synthesis = SynthesisHouse(engine, endpoint.url, parallel=1).run(target=1)
    assert synthesis.samples == {SampleState.ACCEPTED: 1}
    # The back-off alone would wait 0.01 s.
    assert times[1] - times[0] >= 1.0


def test_a_prompt_that_the_teacher_refuses_is_counted_and_not_asked_again(engine: Engine) -> None:
    with scripted(lambda number, body: Reply(status=400) if number == 0 else good(number, body)) as endpoint:
        synthesis = SynthesisHouse(engine, endpoint.url, parallel=1).run(target=2)
    assert synthesis.samples == {SampleState.ACCEPTED: 2, SampleState.REFUSED: 1}
    assert synthesis.refusals == {"teacher_refused": 1} and len(endpoint.requests) == 3


def test_refuses_rows_by_reason(engine: Engine) -> None:
    copied = passage("ledger")
    scripts = {
        0: "Sure! " + rows_json(("Ask", distinct(0))),
        1: rows_json((f"Case {distinct(1, 5)}", f"{distinct(1)} 4711")),
        2: rows_json(("Short", "Yes.")),
        3: rows_json((f"Long {distinct(3, 5)}", distinct(3, 2_100))),
        4: rows_json(("In 2024 the policy has 17 parts and ledgera ledgerb ledgerc ledgerd", copied)),
        5: rows_json((f"Please {distinct(5, 5)}", distinct(5))),
        6: rows_json((f"Please {distinct(5, 5)}", distinct(5) + " more")),
        7: json.dumps({"rows": [{"request": "A", "answer": distinct(7), "note": "x"}]}),
        8: rows_json((f"Held {distinct(8, 5)}", distinct(900, 20))),
    }
    with scripted(
        lambda number, body: Reply(scripts[number]) if number in scripts else good(100 + number, body)
    ) as endpoint:
        house = SynthesisHouse(engine, endpoint.url, parallel=1, documents=1)
        put_held_out_row(house, distinct(900, 40))
        synthesis = house.run(target=2)
    assert synthesis.refusals == {
        "off_format": 2,
        "unfaithful": 1,
        "too_short": 1,
        "too_long": 1,
        "near_duplicate_of_seed": 1,
        "near_duplicate": 1,
        "near_duplicate_of_held_out": 1,
    }
    assert synthesis.samples[SampleState.ACCEPTED] == 2


def put_held_out_row(house: SynthesisHouse, answer: str) -> None:
    """A newest dataset whose held-out split has one row."""
    import pyarrow
    from pyarrow import parquet

    buffer = io.BytesIO()
    messages = [[{"role": "user", "content": "?"}, {"role": "assistant", "content": answer}]]
    parquet.write_table(pyarrow.table({"messages": messages}), buffer)
    house.store.put("datasets", "files/held.parquet", buffer.getvalue())
    manifest = {"splits": {"held_out": {"files": [{"key": "files/held.parquet"}]}}}
    house.store.put("datasets", f"{'ab' * 32}/manifest.json", json.dumps(manifest).encode())
    SqlOrigins(house.engine).admit_first(house.specialist)
    with transaction(house.engine) as connection:
        connection.execute(
            tables.builds.insert().values(specialist=house.specialist.name, kind="sft", digest="ab" * 32)
        )


def test_a_row_like_one_of_an_earlier_synthesis_is_refused(engine: Engine) -> None:
    with scripted(lambda number, body: good(0, body)) as endpoint:
        house = SynthesisHouse(engine, endpoint.url, parallel=1)
        assert house.run(target=1).samples == {SampleState.ACCEPTED: 1}
        second = house.run(target=1)
    assert (second.state, second.reason) == (SynthesisState.SUCCEEDED, Reason.TARGET_NOT_REACHED)
    assert set(second.refusals) == {"near_duplicate"} and SampleState.ACCEPTED not in second.samples


def test_a_judge_refuses_rows_below_the_mark_within_the_same_budget(engine: Engine) -> None:
    marks = iter([2, 5, 5])

    def judge(number: int, body: dict[str, Any]) -> Reply:
        return Reply(json.dumps({"mark": next(marks)}), usage=(40, 5))

    with scripted(good) as teacher, scripted(judge) as endpoint:
        house = SynthesisHouse(engine, teacher.url, judge_url=endpoint.url, parallel=1)
        synthesis = house.run(target=2, min_mark=4)
        rows = list(house.rows.rows(house.specialist))
    assert synthesis.judge == "strict" and synthesis.refusals == {"low_mark": 1}
    assert synthesis.use.judge.used == TokenCount(120, 15)
    assert synthesis.spec.cost(synthesis.use) == TokenPrice(1.0, 10.0).cost(TokenCount(300 + 120, 150 + 15))
    assert {dict(row.lineage)["judge"] for row in rows} == {"strict"}
    assert [sample.mark for sample in list_samples(house, synthesis.synthesis_id, None)] == [2, 5, 5]


def test_a_row_that_the_budget_cannot_judge_is_refused(engine: Engine) -> None:
    with scripted(good) as teacher, scripted(lambda number, body: Reply('{"mark": 5}')) as judge:
        house = SynthesisHouse(engine, teacher.url, judge_url=judge.url, parallel=1, documents=1)
        # The teacher reports nearly the whole budget, so nothing is left for the judge.
        teacher.script = lambda number, body: replace(good(number, body), usage=(2_900, 50))
        synthesis = house.run(target=1, min_mark=1, budget_tokens=3_000, max_answer_tokens=100)
    assert (synthesis.reason, synthesis.refusals) == (Reason.BUDGET_SPENT, {"not_judged": 1})
    assert len(teacher.requests) == 1 and judge.requests == []


def test_translations_are_scored_by_translating_them_back(engine: Engine) -> None:
    source = passage("ledger")
    german = "Die Richtlinie hat 17 Teile. 0 2024 1 2024 2 2024 3 2024 " + distinct(1)

    def translate(number: int, body: dict[str, Any]) -> Reply:
        if "Translate the text" not in body["messages"][0]["content"]:
            return Reply(rows_json(("Bitte übersetzen", re_digits(german, source))))
        return Reply(json.dumps({"text": source if number > 1 else "Nothing of it is left."}))

    with scripted(translate) as endpoint:
        house = SynthesisHouse(engine, endpoint.url, parallel=1, documents=1)
        synthesis = house.run(task="translation", instruction="", languages=("de",), target=1)
        samples = list_samples(house, synthesis.synthesis_id, None)
    assert synthesis.refusals == {"low_back_translation": 1}
    assert [round(sample.back_translation or 0) for sample in samples][1] == 100
    assert (samples[0].back_translation or 0) < 40
    assert samples[1].row.language == "de" and samples[1].row.prompt.endswith(source)


def re_digits(text: str, source: str) -> str:
    """The text with exactly the source's digits."""
    letters = "".join(character for character in text if not character.isdigit())
    return f"{letters} {' '.join(character for character in source if character.isdigit())}"


@pytest.mark.slow
def test_kill_9_repeats_nothing_that_was_answered(engine: Engine, database_url: str) -> None:
    killed = threading.Event()

    def script(number: int, body: dict[str, Any]) -> Reply:
        if 5 <= number < 9:
            killed.wait(240)
        return good(number, body)

    with scripted(script) as endpoint:
        house = SynthesisHouse(engine, endpoint.url)
        synthesis_id = house.create(target=12, attributes=())
        command = [sys.executable, "-m", "tests.integration.synthesis_worker", database_url, endpoint.url]
        worker = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
        try:
            wait_until(lambda: len(endpoint.requests) == 9 and len(answered(engine)) == 5, 180)
        finally:
            worker.send_signal(signal.SIGKILL)
            worker.wait()
            killed.set()
        before = answered(engine)
        end_leases(engine, tables.jobs)
        assert run_due(house.jobs)
        synthesis = house.commands.get(synthesis_id)
    assert synthesis.state is SynthesisState.SUCCEEDED and synthesis.samples == {SampleState.ACCEPTED: 12}
    # 12 requests with an answer, and the 4 whose answers were lost.
    assert len(endpoint.requests) == 16 and before < answered(engine)
    assert synthesis.use.teacher.used.total == 12 * 150
    assert synthesis.use.teacher.lost.completion == 4 * synthesis.spec.max_answer_tokens


def answered(engine: Engine) -> set[int]:
    with transaction(engine) as connection:
        return set(connection.scalars(select(synthesis_answers.c.number)))


def test_an_answer_that_was_stored_before_its_rows_is_used_and_not_asked_again(engine: Engine) -> None:
    with scripted(good) as endpoint:
        house = SynthesisHouse(engine, endpoint.url)
        synthesis = house.run(target=3)
        with transaction(engine) as connection:
            connection.execute(synthesis_rows.delete())
            connection.execute(update(synthesis_answers).values(checked=False))
            connection.execute(update(syntheses).values(state="queued"))
            add_job(connection, tables.jobs, SYNTHESIS, synthesis.synthesis_id)
        assert run_due(house.jobs)
        assert house.commands.get(synthesis.synthesis_id).samples == {SampleState.ACCEPTED: 3}
    assert len(endpoint.requests) == 3


def test_only_one_replica_runs_a_synthesis_and_a_lost_lease_stops_it(engine: Engine) -> None:
    house = SynthesisHouse(engine, "http://127.0.0.1:9/v1")
    synthesis_id = house.create()
    (job,) = house.jobs.claim()
    reservation = TokenReservation(ModelRole.TEACHER, TokenCount(100, 200))
    assert house.syntheses.begin(job) and house.syntheses.reserve(job, reservation)
    assert house.jobs.claim() == []
    end_leases(engine, tables.jobs)
    (taken,) = house.jobs.claim()
    again = house.syntheses.begin(taken)
    assert again is not None and again.use.teacher.lost == TokenCount(100, 200)
    for call in (
        lambda: house.syntheses.begin(job),
        lambda: house.syntheses.reserve(job, reservation),
        lambda: house.syntheses.release(job, reservation, is_lost=False),
        lambda: house.syntheses.finish(job, "X", ""),
    ):
        with pytest.raises(JobLost):
            call()
    assert house.commands.get(synthesis_id).state is SynthesisState.RUNNING


def test_cancelling_stops_further_requests(engine: Engine) -> None:
    started, is_cancelled = threading.Event(), threading.Event()

    def script(number: int, body: dict[str, Any]) -> Reply:
        started.set()
        is_cancelled.wait(60)
        return Reply(good(number, body).content, seconds=0.2)

    with scripted(script) as endpoint:
        house = SynthesisHouse(engine, endpoint.url, parallel=1)
        synthesis_id = house.create(target=500)
        thread = threading.Thread(target=run_due, args=(house.jobs,))
        thread.start()
        assert started.wait(60)
        assert house.commands.cancel(synthesis_id).state is SynthesisState.CANCELLED
        is_cancelled.set()
        thread.join(60)
        asked = len(endpoint.requests)
        assert not thread.is_alive() and asked == 1
        # The job only ends.
        assert run_due(house.jobs) == 1 and run_due(house.jobs) == 0 and len(endpoint.requests) == asked
    synthesis = house.commands.get(synthesis_id)
    assert synthesis.ended_at is not None and synthesis.use.teacher.reserved == TokenCount()
    with pytest.raises(FailedPrecondition, match="SYNTHESIS_ENDED"):
        house.commands.cancel(synthesis_id)
    with pytest.raises(FailedPrecondition, match="SYNTHESIS_ENDED"):
        house.commands.resume(synthesis_id)


def test_no_transaction_is_open_while_the_teacher_answers(engine: Engine) -> None:
    idle: list[int] = []

    def script(number: int, body: dict[str, Any]) -> Reply:
        with engine.connect() as connection:
            query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'"
            idle.append(connection.scalar(text(query)) or 0)
        return good(number, body)

    with scripted(script) as endpoint:
        SynthesisHouse(engine, endpoint.url, parallel=1).run(target=3)
    assert idle == [0, 0, 0]


def test_rows_wait_for_an_expert_if_asked(engine: Engine) -> None:
    with scripted(good) as endpoint:
        house = SynthesisHouse(engine, endpoint.url, parallel=1)
        before = house.rows.fingerprint(house.specialist)
        synthesis = house.run(target=2, needs_review=True)
        assert synthesis.samples == {SampleState.PENDING: 2} and not list(house.rows.rows(house.specialist))
        first, second = list_samples(house, synthesis.synthesis_id, SampleState.PENDING)
        decided = house.commands.review(synthesis.synthesis_id, {first.row_id: True, second.row_id: False}, "key_1")
    assert decided.samples == {SampleState.ACCEPTED: 1, SampleState.REJECTED: 1}
    assert [row.completion for row in house.rows.rows(house.specialist)] == [first.row.completion]
    assert house.rows.fingerprint(house.specialist) != before
    (sample,) = list_samples(house, synthesis.synthesis_id, SampleState.REJECTED)
    assert sample.reviewer == "key_1" and sample.reviewed_at is not None


def test_decisions_are_recorded_all_or_none(engine: Engine) -> None:
    with scripted(lambda number, body: Reply("no") if number == 0 else good(number, body)) as endpoint:
        house = SynthesisHouse(engine, endpoint.url, parallel=1)
        synthesis = house.run(target=1)
    accepted, refused = (
        list_samples(house, synthesis.synthesis_id, state)[0] for state in (SampleState.ACCEPTED, SampleState.REFUSED)
    )
    with pytest.raises(FailedPrecondition, match="SAMPLE_REFUSED"):
        house.commands.review(synthesis.synthesis_id, {accepted.row_id: False, refused.row_id: True}, "key_1")
    with pytest.raises(NotFound, match="UNKNOWN_SAMPLE"):
        house.commands.review(synthesis.synthesis_id, {accepted.row_id: False, "row_0": True}, "key_1")
    assert house.commands.get(synthesis.synthesis_id).samples[SampleState.ACCEPTED] == 1


def test_erasing_a_document_deletes_what_was_made_from_it(engine: Engine) -> None:
    with scripted(good) as endpoint:
        house = SynthesisHouse(engine, endpoint.url, documents=2)
        erased, kept = house.ids
        first = house.run(target=2, document_ids=(erased,))
        second = house.run(target=2, document_ids=(kept,))
    with transaction(engine) as connection:
        assert forget_seed(connection, erased) == 2
    assert stored_rows(engine, first.synthesis_id) == [] and len(stored_rows(engine, second.synthesis_id)) == 2
    assert house.commands.get(first.synthesis_id).spec.document_ids == ()
    assert all(row.document_ids == (kept,) for row in house.rows.rows(house.specialist))
    with transaction(engine) as connection:
        answers = connection.execute(select(synthesis_answers.c.synthesis_id).distinct()).scalars().all()
    assert answers == [second.synthesis_id]


def test_erasing_an_example_deletes_what_was_made_with_it(engine: Engine) -> None:
    named, other = SeedExample("Assess Sarah Jenkins.", "Sarah Jenkins is a low risk."), SeedExample("Assess.", "Low.")
    with scripted(good) as endpoint:
        house = SynthesisHouse(engine, endpoint.url, documents=0)
        first = house.run(target=2, examples=(named, other))
        second = house.run(target=2, examples=(other,))
    key = first.spec.examples[0].document_id
    assert key.startswith("txt_") and first.spec.examples[1].document_id == ""
    assert {row.document_ids for row in house.rows.rows(house.specialist)} == {(), (key,)}
    with transaction(engine) as connection:
        assert forget_seed(connection, key) == 2
    assert house.commands.get(first.synthesis_id).spec.examples == (SeedExample("", ""), other)
    assert stored_rows(engine, first.synthesis_id) == [] and len(stored_rows(engine, second.synthesis_id)) == 2
    spec = house.commands.get(first.synthesis_id).spec
    assert [seed.key for seed in read_seeds(house.seeds, spec, house.specialist)] == ["example:2"]


def test_erasing_a_seed_of_a_running_synthesis_takes_its_job_away(engine: Engine) -> None:
    house = SynthesisHouse(engine, "http://127.0.0.1:9/v1", documents=2)
    erased, kept = house.ids
    house.create(document_ids=(erased, kept))
    (job,) = house.jobs.claim()
    assert house.syntheses.begin(job)
    with transaction(engine) as connection:
        forget_seed(connection, erased)
    # What the run still has in memory is neither stored nor sent.
    with pytest.raises(JobLost):
        house.syntheses.keep_samples(job, 0, [])
    with pytest.raises(JobLost):
        house.syntheses.reserve(job, TokenReservation(ModelRole.TEACHER, TokenCount(1, 1)))
    (taken,) = house.jobs.claim()
    again = house.syntheses.begin(taken)
    assert again is not None and again.spec.document_ids == (kept,)


def test_held_out_documents_are_no_seeds_and_their_rows_never_train(engine: Engine) -> None:
    with scripted(good) as endpoint:
        house = SynthesisHouse(engine, endpoint.url, documents=3)
        held_out, *others = house.ids
        house.hold_out(held_out)
        synthesis = house.run(target=2, seeds=3)
        assert set(synthesis.spec.document_ids) == set(others)
        with pytest.raises(InvalidArgument, match="SEED_HELD_OUT"):
            house.create(document_ids=(held_out,))
        assert len(list(house.rows.rows(house.specialist))) == 2
        # A side that was decided later counts too.
        house.hold_out(*others)
        assert list(house.rows.rows(house.specialist)) == []


def test_examples_pass_the_barrier_before_they_are_stored_or_sent(engine: Engine) -> None:
    with scripted(good) as endpoint:
        house = SynthesisHouse(engine, endpoint.url, documents=0)
        example = SeedExample("Assess Sarah Jenkins.", "Sarah Jenkins is a low risk.")
        synthesis = house.run(target=1, examples=(example,))
    with transaction(engine) as connection:
        stored = json.dumps(connection.scalar(select(syntheses.c.spec)))
    assert "Jenkins" not in stored and "PERSON of reports" in stored
    sent = json.dumps(endpoint.requests)
    assert "Jenkins" not in sent and "PERSON of reports is a low risk." in sent
    assert synthesis.samples == {SampleState.ACCEPTED: 1}


def test_a_request_id_makes_one_synthesis(engine: Engine) -> None:
    house = SynthesisHouse(engine, "http://127.0.0.1:9/v1")
    assert house.create("req_1") == house.create("req_1") != house.create("req_2")
    with pytest.raises(InvalidArgument, match="REQUEST_ID_REUSED"):
        house.create("req_1", target=7)


def test_lists_the_newest_first_by_specialist(engine: Engine) -> None:
    house = SynthesisHouse(engine, "http://127.0.0.1:9/v1")
    created = [house.create() for _ in range(3)]
    assert [
        item.synthesis_id for item in house.syntheses.list_page(pb.ListSynthesesRequest(page_size=2), ["reports"]).items
    ] == created[:0:-1]
    assert [
        item.synthesis_id
        for item in house.syntheses.list_page(
            pb.ListSynthesesRequest(query=common_pb2.ListQuery(order_by="create_time")), []
        ).items
    ] == created
    assert house.syntheses.list_page(pb.ListSynthesesRequest(), ["others"]).items == []


# The servicer only asks its context whether the call is active.
class Context:
    def is_active(self) -> bool:
        return True


def servicer(house: SynthesisHouse) -> SynthesisServicer:
    return SynthesisServicer(house.commands, {house.specialist.name: house.specialist})


def test_the_service_creates_watches_lists_and_reviews(engine: Engine) -> None:
    set_caller(Caller("key", "expert", "ROLE_OPERATOR", key_id="key_7"))
    context: Any = Context()
    with scripted(good) as endpoint:
        house = SynthesisHouse(engine, endpoint.url)
        service = servicer(house)
        spec = pb.SynthesisSpec(
            specialist="reports",
            task="risk-assessment",
            instruction="Assess.",
            target=2,
            budget_eur=1.0,
            needs_review=True,
            attributes=[pb.SynthesisAttribute(name="sector", values=["banks", "insurers"])],
        )
        request = pb.CreateSynthesisRequest(spec=spec, request_id="req_1")
        created = service.CreateSynthesis(request, context).synthesis
        assert created == service.CreateSynthesis(request, context).synthesis
        assert (created.state, created.teacher, created.spec.min_back_translation) == (1, "wise", 40.0)
        assert (created.spec.teacher_price.input, created.spec.teacher_price.output) == (1.0, 10.0)
        run_due(house.jobs)
        watched = [
            answer.synthesis
            for answer in service.WatchSynthesis(pb.WatchSynthesisRequest(synthesis_id=created.synthesis_id), context)
        ]
    assert watched[-1].state == pb.SYNTHESIS_STATE_SUCCEEDED and watched[-1].pending == 2
    assert watched[-1].use.tokens == 300 and watched[-1].use.eur == pytest.approx(0.0012)
    one = pb.ListSamplesRequest(
        synthesis_id=created.synthesis_id, page_size=1, query=common_pb2.ListQuery(filters={"state": "pending"})
    )
    first = service.ListSamples(one, context)
    one.page_token = first.next_page_token
    second = service.ListSamples(one, context)
    assert first.samples[0].row_id != second.samples[0].row_id and not second.next_page_token
    decision = pb.SampleDecision(row_id=first.samples[0].row_id, accept=True)
    review = pb.ReviewSamplesRequest(synthesis_id=created.synthesis_id, decisions=[decision])
    assert service.ReviewSamples(review, context).synthesis.accepted == 1
    listed = service.ListSamples(
        pb.ListSamplesRequest(
            synthesis_id=created.synthesis_id, query=common_pb2.ListQuery(filters={"state": "accepted"})
        ),
        context,
    )
    assert [sample.reviewer for sample in listed.samples] == ["key_7"]


def test_a_key_of_another_specialist_sees_and_changes_nothing(engine: Engine) -> None:
    context: Any = Context()
    house = SynthesisHouse(engine, "http://127.0.0.1:9/v1")
    synthesis_id, service = house.create(), servicer(house)
    set_caller(Caller("key", "expert", "ROLE_OPERATOR", frozenset({"letters"})))
    for call in (
        lambda: service.GetSynthesis(pb.GetSynthesisRequest(synthesis_id=synthesis_id), context),
        lambda: service.CancelSynthesis(pb.CancelSynthesisRequest(synthesis_id=synthesis_id), context),
        lambda: service.ResumeSynthesis(pb.ResumeSynthesisRequest(synthesis_id=synthesis_id), context),
        lambda: service.ListSamples(pb.ListSamplesRequest(synthesis_id=synthesis_id), context),
        lambda: service.ReviewSamples(pb.ReviewSamplesRequest(synthesis_id=synthesis_id), context),
        lambda: next(service.WatchSynthesis(pb.WatchSynthesisRequest(synthesis_id=synthesis_id), context)),
        lambda: service.ListSyntheses(pb.ListSynthesesRequest(specialist="reports"), context),
    ):
        with pytest.raises(NotFound, match="UNKNOWN_S"):
            call()
    assert not service.ListSyntheses(pb.ListSynthesesRequest(), context).syntheses
    assert house.commands.get(synthesis_id).state is SynthesisState.QUEUED


def test_says_what_is_missing_before_anything_is_asked(engine: Engine) -> None:
    house = SynthesisHouse(engine, "http://127.0.0.1:9/v1")
    commands = house.commands
    spec = SynthesisSpec("reports", "risk-assessment", 5, instruction="Assess.", budget_eur=1.0)
    wrong: list[tuple[SynthesisCommands, SynthesisSpec, Any, Reason]] = [
        (replace(commands, teacher=None), spec, house.specialist, Reason.NO_TEACHER),
        (replace(commands, prices={}), spec, house.specialist, Reason.NO_PRICE),
        (commands, replace(spec, min_mark=3), house.specialist, Reason.NO_JUDGE),
        (commands, spec, replace(house.specialist, use_teacher=False), Reason.TEACHER_NOT_ALLOWED),
        (commands, replace(spec, document_ids=("doc_x",)), house.specialist, Reason.UNKNOWN_DOCUMENT),
        (commands, spec, replace(house.specialist, selection=Selection(("mail",))), Reason.NO_SEEDS),
    ]
    for case, given, specialist, reason in wrong:
        with pytest.raises(TailorError) as raised:
            case.create(given, specialist, "")
        assert raised.value.reason == reason
    assert house.syntheses.list_page(pb.ListSynthesesRequest(), []).items == []
