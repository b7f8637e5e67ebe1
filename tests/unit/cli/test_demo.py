"""The steps of `tailor demo` against fake services: what they wait for, count and write."""

import io
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tailor import demo
from tailor.api.events.v1 import documents_pb2, models_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.api.synthetic.v1 import synthetic_pb2
from tailor.api.training.v1 import training_pb2
from tailor.cli.connections import Connections
from tailor.cli.definitions import read_definition
from tailor.cli.demo import SAMPLE, print_figures
from tailor.cli.story import Story, wait_for, wait_out_errors
from tailor.errors import DeadlineExceeded, FailedPrecondition, NotFound, Reason, Unavailable
from tests.evaluations import make_evaluated, make_figures
from tests.fakes.services import ADAPTER, DATASET, REFUSED_ADAPTER
from tests.unit.cli.conftest import Services

NAME = "engagement-reports"
NEW_DATASET = synthetic_pb2.BuildDatasetResponse(
    dataset=models_pb2.DatasetBuilt(digest=DATASET, specialist=NAME, base="tiny", recipe="lora"), created=True
)


def quiet(text: str) -> None:
    del text


def trained(digest: str) -> models_pb2.AdapterTrained:
    return models_pb2.AdapterTrained(digest=digest, specialist=NAME)


def test_counts_outcomes_by_reason_and_type_the_most_frequent_first() -> None:
    events = [
        documents_pb2.DocumentAnonymized(submission_id="sub_1", findings={"IBAN": 1, "PERSON": 2}),
        documents_pb2.DocumentAnonymized(submission_id="sub_2", findings={"PERSON": 1}),
        documents_pb2.DocumentRejected(submission_id="sub_3", reason=documents_pb2.REJECTION_REASON_CORRUPT),
    ]

    figures = demo.count_outcomes(events, 4)

    assert (figures["documents_published"], figures["documents_anonymized"]) == (4, 2)
    assert figures["documents_rejected"] == {"CORRUPT": 1}
    assert list(figures["personal_data_found"].items()) == [("PERSON", 3), ("IBAN", 1)]
    assert demo.describe_outcomes(figures) == "4 published, 2 anonymised; rejected CORRUPT 1; found PERSON 3, IBAN 1"


def test_waits_out_retryable_errors_and_no_others() -> None:
    answers: list[Exception | int] = [Unavailable(Reason.STOPPED, "It restarts."), 7]
    texts: list[str] = []

    def call() -> int:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert wait_out_errors(call, texts.append) == 7
    assert texts == ["waiting: It restarts."]
    answers.append(NotFound(Reason.NOT_FOUND, "There is none."))
    with pytest.raises(NotFound):
        wait_out_errors(call, quiet)


def test_gives_up_on_an_error_that_lasts() -> None:
    def call() -> int:
        raise Unavailable(Reason.STOPPED, "It restarts.")

    with pytest.raises(Unavailable):
        wait_out_errors(call, quiet, give_up_seconds=0.0)


def test_a_flow_that_stalls_is_an_error() -> None:
    with pytest.raises(DeadlineExceeded, match="3 of 4 documents"):
        wait_for(lambda: (None, "3 of 4 documents"), quiet, stalled_seconds=0.05, poll_seconds=0.01)


def test_follows_training_while_the_service_restarts(connections: Connections, services: Services) -> None:
    services.training.breaks = 1
    texts: list[str] = []

    adapter = demo.train(connections, NEW_DATASET, texts.append)

    assert adapter.digest == ADAPTER
    assert "waiting: The service stops." in texts
    assert any(text.startswith("step 4/4") for text in texts)


def test_reports_why_a_run_failed(connections: Connections, services: Services) -> None:
    services.training.ends = training_pb2.RUN_STATE_FAILED

    with pytest.raises(FailedPrecondition, match="INVALID_ROW: A row has no answer"):
        demo.train(connections, NEW_DATASET, quiet)


def test_trains_nothing_if_the_dataset_already_has_an_adapter(connections: Connections, services: Services) -> None:
    texts: list[str] = []
    existing = synthetic_pb2.BuildDatasetResponse(dataset=NEW_DATASET.dataset, created=False)

    assert demo.train(connections, existing, texts.append).digest == ADAPTER
    assert texts == [demo.NOTHING_NEW]
    assert services.training.polls == 0


def test_waits_for_the_decision_of_the_gate(connections: Connections, services: Services) -> None:
    services.registry.undecided = 1
    texts: list[str] = []

    item = demo.evaluate(connections, trained(ADAPTER), texts.append)

    assert item.decision == registry_pb2.DECISION_PASSED
    assert texts == ["3 of 8 rows measured", "16 held-out rows; the gate's verdict is passed"]


def test_a_refused_adapter_comes_with_the_reasons(connections: Connections) -> None:
    item = demo.evaluate(connections, trained(REFUSED_ADAPTER), quiet)

    assert item.decision == registry_pb2.DECISION_REFUSED
    assert list(item.reasons) == ["rougeL gains +0.001 (95 %: -0.010 to +0.012, 16 rows) over base"]


def test_waits_until_inference_serves_the_adapter(connections: Connections) -> None:
    with connections.client() as client:
        demo.wait_until_served(connections, client, trained(ADAPTER), quiet)


def test_does_not_wait_for_an_adapter_that_was_rolled_back(connections: Connections) -> None:
    with connections.client() as client, pytest.raises(FailedPrecondition, match="NOT_SERVING"):
        demo.wait_until_served(connections, client, trained(REFUSED_ADAPTER), quiet)


def test_asks_both_models_again_while_inference_fails(connections: Connections, services: Services) -> None:
    services.inference.failures = 6

    with connections.client() as client:
        answers = demo.ask_both(client, NAME, ["one", "two"], quiet)

    assert [(answer["base"], answer["tuned"]) for answer in answers] == [
        ("base: one", f"{NAME}: one"),
        ("base: two", f"{NAME}: two"),
    ]
    assert {answer["draft_id"] for answer in answers} == {"drf_1"}


def figures() -> dict[str, Any]:
    """The figures of a run that promoted its adapter."""
    dataset = models_pb2.DatasetBuilt(digest="d", train_rows=200, held_out_rows=20)
    item = registry_pb2.CatalogueAdapter(adapter=trained("a"), decision=registry_pb2.DECISION_PASSED)
    item.evaluation.CopyFrom(make_evaluated("a", "reports", make_figures("bleu", base=1.0, candidate=3.5)))
    answers = [{"question": "What [now]?", "base": "plain", "tuned": "house", "draft_id": "drf_1"}]
    models = demo.model_figures(dataset, item)
    return demo.count_outcomes([], 0) | models | {"answers": answers, "seconds": dict.fromkeys(demo.STEPS, 0.0)}


def test_the_file_has_exactly_the_promised_fields(tmp_path: Path) -> None:
    demo.save(tmp_path / "demo.json", figures())

    document = json.loads((tmp_path / "demo.json").read_text())

    assert list(document) == [
        "documents_published",
        "documents_anonymized",
        "documents_rejected",
        "personal_data_found",
        "dataset",
        "run",
        "adapter",
        "evaluation",
        "verdict",
        "promoted",
        "answers",
        "seconds",
    ]
    assert document["dataset"] == {"digest": "d", "rows": 200, "held_out": 20}
    assert list(document["run"]) == ["id", "seconds", "steps", "first_loss", "last_loss", "tokens_per_second"]
    assert document["verdict"] == {"decision": "passed", "reasons": []}
    assert document["evaluation"]["metrics"][0]["gains"]["base"]["value"] == 2.5
    assert document["promoted"] is True
    assert [path.name for path in tmp_path.iterdir()] == ["demo.json"]


def test_prints_the_figures_for_people() -> None:
    output = io.StringIO()
    console = Console(file=output, width=200)

    print_figures(console, figures())

    text = output.getvalue()
    assert "What [now]?" in text
    assert "+2.500 (+2.495 to +2.505)" in text


def test_steps_are_lines_without_a_terminal() -> None:
    output = io.StringIO()
    console = Console(file=output, width=100)
    story = Story(console)

    with story.step("up", "start the stack"):
        story.now("every part is healthy")
    with pytest.raises(RuntimeError), story.step("base", "fetch the base"):
        raise RuntimeError

    lines = output.getvalue().splitlines()
    assert lines[0] == "up: start the stack ..."
    assert lines[1].startswith("up: done in 0.0 s. every part is healthy")
    assert lines[-1].startswith("base: failed in 0.0 s")
    assert list(story.seconds) == ["up", "base"]


def test_a_terminal_shows_what_is_happening_now() -> None:
    output = io.StringIO()
    console = Console(file=output, width=100, force_terminal=True)
    story = Story(console)

    with story.step("up", "start the stack"):
        story.now("waiting for [the broker]")

    assert "waiting for [the broker]" in output.getvalue()


def test_the_sample_defines_a_specialist_with_all_house_terms() -> None:
    definition = read_definition(SAMPLE / "specialist.toml")
    terms = (SAMPLE / "house_terms.txt").read_text(encoding="utf-8").split("\n")

    assert list(definition.house_terms) == [term for term in terms if term]
    assert definition.gate.min_rows == 8
    assert (definition.keep_drafts, definition.preference_recipe) == (True, "dpo")
    assert definition.gate.primary.metric == "log_likelihood" and definition.gate.primary.min_gain > 0
    assert tomllib.loads((SAMPLE / "specialist.toml").read_text())["recipe"] == "lora"


def test_the_sample_asks_three_questions() -> None:
    assert len(demo.read_questions(SAMPLE / "questions.json")) == 3
