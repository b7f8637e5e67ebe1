"""The bench that strikes a stack: its plan follows from the seed, its checker notices planted faults, and its cut breaks connections."""

import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from bench.chaos import PREFERENCES, Struck, count, render
from bench.chaos_check import (
    ChaosCall,
    ChaosVerdict,
    DraftFact,
    Found,
    FoundErasure,
    FoundRun,
    FoundSubmission,
    History,
    SentDocument,
    SentRanking,
    check,
)
from bench.chaos_faults import ACTIONS, COMPONENTS, POINTS, WORKER, Points, cut_connections, plan_faults
from bench.chaos_load import Traffic
from services.training.recipe import parse_recipe
from tailor.cli.connections import Connections, Endpoints

pytestmark = pytest.mark.release

SPECIALIST, ADAPTER = "chaos-reports", "a1" * 32
FIRST_OF_SEED_1 = [
    ("draft.created.v1", "training", "cut"),
    ("adapter.evaluated.v1", "registry", "kill"),
    ("document.ingested.v1", "broker", "pause"),
]


def test_its_recipe_is_valid() -> None:
    assert parse_recipe(PREFERENCES).method == "dpo"


def test_a_seed_repeats_a_plan_and_another_seed_does_not() -> None:
    assert plan_faults(7, 200) == plan_faults(7, 200)
    assert plan_faults(7, 20) == plan_faults(7, 200)[:20]
    assert plan_faults(8, 200) != plan_faults(7, 200)


def test_the_first_plan_stays_what_it_is() -> None:
    first = plan_faults(1, 3)
    assert [(fault.point, fault.component, fault.action) for fault in first] == FIRST_OF_SEED_1


def test_every_component_action_and_point_has_its_turn() -> None:
    plan = plan_faults(1, 200)
    components = Counter(fault.component for fault in plan)
    assert set(components) == set(COMPONENTS)
    assert max(components.values()) - min(components.values()) <= 1
    assert set(Counter(fault.action for fault in plan)) == set(ACTIONS)
    assert {fault.point for fault in plan} == set(POINTS)
    assert {fault.point for fault in plan if fault.component == WORKER} == {"run.progressed.v1"}
    assert all(0 <= fault.delay <= 1.5 and 1 <= fault.seconds <= 8 for fault in plan)
    assert {fault.waits for fault in plan} == {True, False}


def test_a_point_is_waited_for_until_it_is_passed_again() -> None:
    points = Points()
    points.mark("call.sent")
    assert not points.wait("call.sent", 0.01)


def test_no_two_documents_have_the_same_marker() -> None:
    load = Traffic(Connections(Endpoints(Path())), [], Points(), seed=1)
    # Three of forty words meet twice among as many documents.
    markers = [load.add_document(number, "chaos").marker for number in range(600)]
    assert len(set(markers)) == 600


def _history() -> History:
    return History(
        documents={
            "memo-1": SentDocument("memo-1", "amberanchor", sent=3, acknowledged=2),
            "memo-2": SentDocument("memo-2", "barleybasket", sent=2, acknowledged=2, withdrawn=True),
        },
        rankings=[SentRanking("ranking-1", frozenset({"jdg_1"}), ("drf_1", "drf_2"))],
        calls=[
            ChaosCall(
                "generate: Write.", "A memo.", draft_id="drf_1", specialist=SPECIALIST, generation=1, adapter=ADAPTER
            ),
            ChaosCall(
                "generate: Write.", "A memo.", draft_id="drf_2", specialist=SPECIALIST, generation=1, adapter=ADAPTER
            ),
            ChaosCall("generate: Write.", error="UNAVAILABLE UNAVAILABLE"),
        ],
    )


def _found() -> Found:
    fact = DraftFact(SPECIALIST, 1, ADAPTER, "digest")
    return Found(
        submissions={
            "memo-1": [FoundSubmission("sub_1", "doc_1"), FoundSubmission("sub_2", "doc_1", "DUPLICATE")],
            "memo-2": [FoundSubmission("sub_4", "doc_2", "ERASED")],
        },
        passed={"sub_1": {"doc_1 passed as version 1"}, "sub_3": {"doc_2 passed as version 1"}},
        rejected={"sub_2": {"doc_1 DUPLICATE"}, "sub_4": {"doc_2 ERASED"}},
        catalogue=["doc_1"],
        counted_passed=1,
        counted_rejected=2,
        held={"amberanchor"},
        erasures=[FoundErasure("ers_1", ("doc_2",))],
        judgements={"jdg_1": {("drf_1", "drf_2")}},
        pairs=1,
        runs=[FoundRun("run_1", "dataset recipe", True, ADAPTER), FoundRun("run_2", "other", True, "", "WORKER_DIED")],
        trained={"run_1/0": {ADAPTER}},
        adapters=[ADAPTER],
        serving={(SPECIALIST, 1): {ADAPTER}},
        drafts={"drf_1": {fact}, "drf_2": {fact}},
        traced={"drf_1", "drf_2"},
    )


def test_a_history_in_which_everything_happened_once_has_no_fault() -> None:
    assert check(_history(), _found()) == ChaosVerdict()


def _forget_submission(history: History, found: Found) -> None:
    found.submissions = {**found.submissions, "memo-1": found.submissions["memo-1"][:1]}


def _forget_outcome(history: History, found: Found) -> None:
    found.passed = {"sub_3": {"doc_2 passed as version 1"}}
    found.counted_passed = 0


def _ignore_tombstone(history: History, found: Found) -> None:
    found.submissions = {**found.submissions, "memo-2": [FoundSubmission("sub_4", "doc_2")]}
    found.rejected = {"sub_2": {"doc_1 DUPLICATE"}}
    found.counted_rejected = 1


def _end_without_a_reason(history: History, found: Found) -> None:
    found.runs = [*found.runs, FoundRun("run_3", "third", True)]


LOST = [_forget_submission, _forget_outcome, _ignore_tombstone, _end_without_a_reason]


def _submit_more_than_was_sent(history: History, found: Found) -> None:
    history.documents["memo-1"].sent = history.documents["memo-1"].acknowledged = 1


def _pass_and_reject(history: History, found: Found) -> None:
    found.rejected = {**found.rejected, "sub_1": {"doc_1 TIMEOUT"}}
    found.counted_rejected = 3


def _pass_as_two_versions(history: History, found: Found) -> None:
    found.passed = {**found.passed, "sub_1": {"doc_1 passed as version 1", "doc_1 passed as version 2"}}


def _make_two_documents(history: History, found: Found) -> None:
    found.submissions = {
        **found.submissions,
        "memo-1": [FoundSubmission("sub_1", "doc_1"), FoundSubmission("sub_2", "doc_9", "DUPLICATE")],
    }


def _erase_twice(history: History, found: Found) -> None:
    found.erasures = [*found.erasures, FoundErasure("ers_2", ("doc_2",))]


def _judge_twice(history: History, found: Found) -> None:
    history.rankings[:] = [SentRanking("ranking-1", frozenset({"jdg_1", "jdg_2"}), ("drf_1", "drf_2"))]
    found.judgements = {**found.judgements, "jdg_2": {("drf_1", "drf_2")}}


def _judge_unasked(history: History, found: Found) -> None:
    found.judgements = {**found.judgements, "jdg_2": {("drf_1", "drf_2")}}


def _run_twice(history: History, found: Found) -> None:
    found.runs = [*found.runs, FoundRun("run_3", "dataset recipe", True, ADAPTER)]


def _change_draft(history: History, found: Found) -> None:
    other = DraftFact(SPECIALIST, 1, ADAPTER, "other digest")
    found.drafts = {**found.drafts, "drf_1": {*found.drafts["drf_1"], other}}


TWICE = [
    _submit_more_than_was_sent,
    _pass_and_reject,
    _pass_as_two_versions,
    _make_two_documents,
    _erase_twice,
    _judge_twice,
    _judge_unasked,
    _run_twice,
    _change_draft,
]


def _answer_differently(history: History, found: Found) -> None:
    history.calls.append(ChaosCall("generate: Write.", "A mail.", specialist=SPECIALIST, generation=1, adapter=ADAPTER))


def _answer_with_a_fault(history: History, found: Found) -> None:
    history.calls.append(ChaosCall("anonymize", fault="personal data came back, or the text did not"))


def _answer_of_another_model(history: History, found: Found) -> None:
    found.drafts = {**found.drafts, "drf_1": {DraftFact(SPECIALIST, 1, "b2" * 32, "digest")}}


WRONG = [_answer_differently, _answer_with_a_fault, _answer_of_another_model]


def _never_end(history: History, found: Found) -> None:
    found.runs = [*found.runs, FoundRun("run_3", "third", False, "", "WORKER_DIED")]


def _never_confirm(history: History, found: Found) -> None:
    history.unfinished.append("ranking-2: UNAVAILABLE")


STUCK = [_never_end, _never_confirm]


def _change(history: History, found: Found, field: str, value: object) -> None:
    setattr(found, field, value)


# Faults that change one thing of what was found: their kind, what they are, what they change, and to what.
CHANGES: Sequence[tuple[str, str, str, object]] = [
    ("lost", "forget catalogue entry", "catalogue", []),
    ("lost", "forget text", "held", set()),
    ("lost", "miscount", "counted_passed", 0),
    ("lost", "keep erased text", "held", {"amberanchor", "barleybasket"}),
    ("lost", "resurrect", "catalogue", ["doc_1", "doc_2"]),
    ("lost", "forget erasure", "erasures", []),
    ("lost", "forget judgement", "judgements", {}),
    ("lost", "forget pair", "pairs", 0),
    ("lost", "forget draft", "traced", {"drf_1"}),
    ("lost", "forget adapter", "adapters", []),
    ("lost", "dead letter", "dead_letters", ["dataset.built.v1/0/7 of training (UNDECODABLE)"]),
    ("twice", "list twice", "catalogue", ["doc_1", "doc_1"]),
    ("twice", "count twice", "counted_passed", 3),
    ("twice", "pair twice", "pairs", 2),
    ("twice", "train twice", "trained", {"run_1/0": {ADAPTER, "b2" * 32}}),
    ("twice", "serve two", "serving", {(SPECIALIST, 1): {ADAPTER, "b2" * 32}}),
    ("wrong_answers", "answer of no generation", "serving", {}),
    (
        "stuck",
        "wait for service",
        "erasures",
        [FoundErasure("ers_1", ("doc_2",), ("evaluation",), has_receipt=False)],
    ),
    ("stuck", "never evaluate", "not_evaluated", [ADAPTER]),
    ("stuck", "never become ready", "not_ready", ["ingestion"]),
]


@pytest.mark.parametrize(
    ("kind", "plant"),
    [
        *(("lost", plant) for plant in LOST),
        *(("twice", plant) for plant in TWICE),
        *(("wrong_answers", plant) for plant in WRONG),
        *(("stuck", plant) for plant in STUCK),
        *(
            pytest.param(kind, partial(_change, field=field, value=value), id=name)
            for kind, name, field, value in CHANGES
        ),
    ],
)
def test_a_planted_fault_is_counted_as_what_it_is(kind: str, plant: Callable[[History, Found], None]) -> None:
    history, found = _history(), _found()
    plant(history, found)
    verdict = check(history, found)
    assert len(getattr(verdict, kind)) >= 1
    others = {"lost", "twice", "wrong_answers", "stuck"} - {kind}
    assert not any(getattr(verdict, other) for other in others), verdict


def test_handling_twice_is_no_fault() -> None:
    history, found = _history(), _found()
    history.documents["memo-1"].sent = 9
    assert check(history, found).is_clean


def test_the_figures_count_only_faults_that_struck() -> None:
    plan = plan_faults(1, 3)
    struck = [Struck(fault, True, fault.number != 2, 1.0) for fault in plan]
    figures = count(_history(), struck, ChaosVerdict(lost=["memo-1"]))
    assert (figures["kills"], figures["lost"], figures["twice"], figures["without_a_process"]) == (2, 1, 0, 1)
    embedded = {"broker": "noida-db 1", "kills": 3, "acknowledged": 90, "forgotten": 4}
    section = render(
        {**figures, "seed": 1, "broker": "Apache Kafka", "brokers": 3, "store": "MinIO", "seconds": 9}
        | {"embedded_broker": embedded}
    )
    assert "| `lost` | 1 |" in section
    assert "forgot 4 of 90 acknowledged records when it was killed 3 times" in section


CLIENT = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection:
    print("connected", flush=True)
    print(connection.recv(1), flush=True)
"""


def test_a_cut_breaks_the_connections_of_another_process() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        command = [sys.executable, "-c", CLIENT, str(server.getsockname()[1])]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
            assert client.stdout is not None
            assert client.stdout.readline() == "connected\n"
            with server.accept()[0]:
                assert cut_connections(client.pid) == 1
                assert client.stdout.readline() == "b''\n"


def test_a_cut_of_a_process_that_has_ended_breaks_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    assert cut_connections(ended.pid) == 0
    assert os.getpid() != ended.pid
