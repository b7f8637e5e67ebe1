"""The demo's parts against fake services: what it waits for, what it counts, what it writes."""

import io
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from tailor.api.events.v1 import documents_pb2, models_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.api.training.v1 import training_pb2
from tailor.cli import demo_training
from tailor.cli.connections import Connections
from tailor.cli.demo import PHASES, SAMPLE
from tailor.cli.demo_asking import ask_both, read_questions
from tailor.cli.demo_documents import ANONYMIZED, INGESTED, REJECTED, Tally
from tailor.cli.demo_report import AnswerPair, DatasetFigures, Report, ScoreFigures, print_report
from tailor.cli.demo_view import View
from tailor.cli.demo_wait import follow, patiently, until
from tailor.cli.specialists import read_definition
from tailor.errors import DeadlineExceeded, FailedPrecondition, NotFound, Reason, Unavailable
from tests.unit.cli.conftest import Services
from tests.unit.cli.fakes import ADAPTER, DATASET

NAME = "engagement-reports"
DATASET_EVENT = models_pb2.DatasetBuilt(digest=DATASET, specialist="engagement-reports", base="tiny", recipe="lora")


def quiet(text: str) -> None:
    del text


def anonymized(submission: str, **findings: int) -> bytes:
    return documents_pb2.DocumentAnonymized(submission_id=submission, findings=findings).SerializeToString()


def test_the_tally_counts_each_submission_once_whatever_comes_twice() -> None:
    tally = Tally()
    for _ in range(2):
        tally.add(INGESTED, documents_pb2.DocumentIngested(submission_id="sub_1").SerializeToString())
        tally.add(ANONYMIZED, anonymized("sub_1", PERSON=2, IBAN=1))
        tally.add(ANONYMIZED, anonymized("sub_2", PERSON=1))
        stopped = documents_pb2.DocumentRejected(submission_id="sub_3", reason=documents_pb2.REJECTION_REASON_CORRUPT)
        tally.add(REJECTED, stopped.SerializeToString())

    assert (tally.anonymized, tally.accounted) == (2, 3)
    assert tally.rejected == {"CORRUPT": 1}
    assert tally.findings == {"PERSON": 3, "IBAN": 1}
    assert tally.describe(4) == "4 published, 1 ingested, 2 anonymised; rejected CORRUPT 1; found PERSON 3, IBAN 1"


def test_retryable_errors_are_waited_out_and_others_are_not() -> None:
    answers: list[Exception | int] = [Unavailable(Reason("DOWN"), "It restarts."), 7]
    said: list[str] = []

    def call() -> int:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert patiently(call, said.append) == 7
    assert said == ["waits: It restarts."]
    answers.append(NotFound(Reason("NOBODY"), "There is none."))
    with pytest.raises(NotFound):
        patiently(call, quiet)


def test_patience_ends() -> None:
    def call() -> int:
        raise Unavailable(Reason("DOWN"), "It restarts.")

    with pytest.raises(Unavailable):
        patiently(call, quiet, seconds=0.0)


def test_a_flow_that_stands_still_is_an_error() -> None:
    with pytest.raises(DeadlineExceeded, match="3 of 4 documents"):
        until(lambda: (None, "3 of 4 documents"), quiet, stalled_seconds=0.05, poll_seconds=0.01)


def test_a_stream_that_ends_early_is_opened_again() -> None:
    opened = [[1], [1, 2, 3]]

    def stream() -> Iterator[int]:
        yield from opened.pop(0)

    assert follow(stream, lambda item: item == 2, lambda item: None, quiet) == 2


def test_training_is_followed_over_a_stream_that_breaks(connections: Connections, services: Services) -> None:
    services.training.breaks = 1
    said: list[str] = []

    item = demo_training.train(connections, DATASET_EVENT, said.append)

    assert item.adapter.digest == ADAPTER
    assert "waits: The service stops." in said
    assert any(text.startswith("step 4/4") for text in said)


def test_a_run_that_fails_says_why(connections: Connections, services: Services) -> None:
    services.training.ends = training_pb2.RUN_STATE_FAILED

    with pytest.raises(FailedPrecondition, match="BAD_ROWS: A row has no answer"):
        demo_training.train(connections, DATASET_EVENT, quiet)


def test_an_adapter_of_the_same_dataset_is_found_again(connections: Connections) -> None:
    found = demo_training.adapter_of_dataset(connections, DATASET_EVENT, quiet)
    other = demo_training.adapter_of_dataset(connections, models_pb2.DatasetBuilt(digest="00"), quiet)

    assert found is not None
    assert found.adapter.digest == ADAPTER
    assert other is None


def test_the_gates_decision_is_waited_for(connections: Connections, services: Services) -> None:
    services.registry.undecided = 1
    said: list[str] = []

    item = demo_training.evaluate(connections, models_pb2.AdapterTrained(digest=ADAPTER, specialist=NAME), said.append)

    assert item.decision == registry_pb2.DECISION_PASSED
    assert said == ["3 of 8 rows measured", "16 held-out rows; the gate is met"]


def test_a_refused_adapter_comes_with_its_refusals(connections: Connections) -> None:
    item = demo_training.evaluate(connections, models_pb2.AdapterTrained(digest="af" * 32, specialist=NAME), quiet)

    assert item.decision == registry_pb2.DECISION_REFUSED
    assert list(item.refusals) == ["rougeL gained 0.00, needs 0.02"]


def test_asking_waits_until_inference_serves_the_adapter(connections: Connections) -> None:
    with connections.client() as client:
        served = [one.provenance.adapter_digest for one in client.specialists()]
        demo_training.wait_until_served(
            connections, client, models_pb2.AdapterTrained(digest=ADAPTER, specialist=NAME), quiet
        )
    assert ADAPTER in served


def test_an_adapter_that_was_rolled_back_is_not_waited_for(connections: Connections) -> None:
    other = models_pb2.AdapterTrained(digest="af" * 32, specialist=NAME)

    with connections.client() as client, pytest.raises(FailedPrecondition, match="NOT_SERVING"):
        demo_training.wait_until_served(connections, client, other, quiet)


def test_both_models_are_asked_again_where_a_stream_breaks(connections: Connections, services: Services) -> None:
    services.inference.failures = 6
    shown: list[object] = []

    with connections.client() as client:
        pairs = ask_both(client, NAME, ["one", "two"], quiet, shown.append)

    assert [(pair.base, pair.tuned) for pair in pairs] == [
        ("base says one", f"{NAME} says one"),
        ("base says two", f"{NAME} says two"),
    ]
    assert {pair.draft_id for pair in pairs} == {"drf_1"}
    assert shown


def test_the_report_has_exactly_the_promised_fields(tmp_path: Path) -> None:
    report = Report(dataset=DatasetFigures("d", 200, 20), scores=ScoreFigures({"bleu": 1.0}, {"bleu": 3.0}))
    report.answers.append(AnswerPair("Q", "plain", "house", "drf_1"))
    report.save(tmp_path / "demo.json")

    document = json.loads((tmp_path / "demo.json").read_text())

    assert list(document) == [
        "documents_published",
        "documents_anonymized",
        "documents_rejected",
        "personal_data_found",
        "dataset",
        "run",
        "adapter",
        "scores",
        "promoted",
        "answers",
        "seconds",
    ]
    assert document["dataset"] == {"digest": "d", "rows": 200, "held_out": 20}
    assert document["promoted"] is False
    assert [path.name for path in tmp_path.iterdir()] == ["demo.json"]


def test_the_report_is_shown_to_people() -> None:
    report = Report(scores=ScoreFigures({"bleu": 1.0}, {"bleu": 3.5}), promoted=True)
    report.answers.append(AnswerPair("What [now]?", "plain", "house", "drf_1"))
    console = Console(file=io.StringIO(), width=100)

    print_report(console, report)

    shown = console.file.getvalue()
    assert "What [now]?" in shown
    assert "+2.500" in shown


def test_without_a_terminal_phases_are_lines() -> None:
    console = Console(file=io.StringIO(), width=100)

    with View(console, PHASES) as view:
        with view.phase("up"):
            view.now("every part is healthy")
        with pytest.raises(RuntimeError), view.phase("base"):
            raise RuntimeError

    lines = console.file.getvalue().splitlines()
    assert lines[0] == "up ..."
    assert "every part is healthy" in console.file.getvalue()
    assert lines[-1].startswith("base: failed in 0.0 s")
    assert set(view.seconds) == set(PHASES)


def test_on_a_terminal_phases_are_a_live_table() -> None:
    console = Console(file=io.StringIO(), width=100, force_terminal=True)

    with View(console, PHASES) as view, view.phase("up"):
        view.now("waits for the broker")
        view.show("below")

    assert "waits for the broker" in console.file.getvalue()


def test_the_samples_specialist_is_a_definition_with_all_house_terms() -> None:
    definition = read_definition(SAMPLE / "specialist.toml")
    terms = (SAMPLE / "house_terms.txt").read_text(encoding="utf-8").split("\n")

    assert list(definition.house_terms) == [term for term in terms if term]
    assert definition.gate.min_rows == 8
    assert (definition.keep_drafts, definition.preference_recipe) == (True, "dpo")
    assert {threshold.metric for threshold in definition.gate.thresholds} == {
        "rouge1",
        "rouge2",
        "rougeL",
        "bleu",
        "house_terms_f1",
        "perplexity",
    }
    assert tomllib.loads((SAMPLE / "specialist.toml").read_text())["recipe"] == "lora"


def test_the_sample_asks_three_questions() -> None:
    assert len(read_questions(SAMPLE / "questions.json")) == 3
