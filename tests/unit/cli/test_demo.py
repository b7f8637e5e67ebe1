"""The steps of `tailor demo` against fake services: what they wait for, count and write."""

import io
import json
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tailor import demo
from tailor.api.events.v1 import documents_pb2, models_pb2
from tailor.api.inference.v1 import inference_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.api.synthetic.v1 import synthetic_pb2
from tailor.api.training.v1 import training_pb2
from tailor.cli import demo_figures
from tailor.cli.connections import Connections
from tailor.cli.definitions import read_definition
from tailor.cli.demo import SAMPLE
from tailor.cli.demo_page import describe_result, list_next_commands, list_remedies, save_scores
from tailor.cli.main import app
from tailor.cli.output import PlainConsole
from tailor.cli.published_files import PublishedFiles
from tailor.cli.submissions import Description, collect
from tailor.errors import AlreadyExists, FailedPrecondition
from tests.evaluations import make_evaluated, make_figures
from tests.fakes.serving import ADAPTER, DATASET, REFUSED_ADAPTER
from tests.unit.cli.conftest import Services

NAME = "engagement-reports"
NEW_DATASET = synthetic_pb2.BuildDatasetResponse(
    dataset=models_pb2.DatasetBuilt(
        digest=DATASET,
        specialist=NAME,
        base="tiny",
        pipeline=[
            models_pb2.PipelineStage(stage="sft", recipe="lora"),
            models_pb2.PipelineStage(stage="dpo", recipe="dpo"),
        ],
    ),
    created=True,
)

DEFINITION = models_pb2.SpecialistChanged(
    name=NAME,
    sampling=models_pb2.SamplingDefaults(repetition_penalty=1.05, max_tokens=90),
    evaluation=models_pb2.EvaluationPolicy(few_shot=1),
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

    figures = demo_figures.count_outcomes(events, 4)

    assert (figures["documents_published"], figures["documents_anonymized"]) == (4, 2)
    assert figures["documents_rejected"] == {"CORRUPT": 1}
    assert list(figures["personal_data_found"].items()) == [("PERSON", 3), ("IBAN", 1)]
    assert (
        demo_figures.describe_outcomes(figures)
        == "4 published, 2 anonymised; rejected CORRUPT 1; found PERSON 3, IBAN 1"
    )


def test_unchanged_documents_are_told_apart() -> None:
    assert "nothing is published again: all 5 documents" in demo_figures.describe_outcomes(
        demo_figures.count_outcomes([], 0, 5)
    )
    some = demo_figures.describe_outcomes(demo_figures.count_outcomes([], 1, 4))
    assert some == "1 published, 0 anonymised; 4 unchanged since an earlier demo, not published again"


def test_publishes_nothing_if_every_file_was_published(connections: Connections, tmp_path: Path) -> None:
    sample, known = make_sample(tmp_path), PublishedFiles(tmp_path / "published.json")
    known.add(sample.documents)
    texts: list[str] = []

    figures = demo.publish_documents(connections, known, sample, False, texts.append)

    assert (figures["documents_published"], figures["documents_unchanged"]) == (0, 2)
    assert texts == ["nothing is published again: all 2 documents are unchanged since an earlier demo"]


def test_an_edited_definition_says_how_to_apply_it(
    connections: Connections, services: Services, tmp_path: Path
) -> None:
    services.registry.other_definition = True

    with pytest.raises(AlreadyExists, match=r"tailor specialist update .*specialist\.toml"):
        demo.define_specialist(connections, tmp_path, make_sample(tmp_path), quiet)


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


def rows() -> list[synthetic_pb2.Row]:
    """One row about memos, and one about reports."""
    return [
        make_row("row_1", "Write a memo on cranes.", "Memo."),
        make_row("row_2", "Draft a report on trams.", "Report."),
    ]


def make_row(row_id: str, prompt: str, answer: str) -> synthetic_pb2.Row:
    messages = [("system", "Be brief."), ("user", prompt), ("assistant", answer)]
    return synthetic_pb2.Row(
        row_id=row_id, messages=[synthetic_pb2.RowMessage(role=role, content=content) for role, content in messages]
    )


def make_sample(folder: Path) -> demo.Sample:
    """Two documents."""
    (folder / "documents").mkdir()
    for name in ("a.md", "b.md"):
        (folder / "documents" / name).write_text(f"# {name}\n")
    submissions = collect([folder / "documents"], Description())
    return demo.Sample(folder / "specialist.toml", DEFINITION, submissions, ["one"])


def test_asks_all_three_models_again_while_inference_fails(connections: Connections, services: Services) -> None:
    services.inference.failures = 6

    with connections.client() as client:
        answers = demo.ask_all(client, DEFINITION, rows(), ["a memo on boats", "a report on bridges"], quiet)

    assert [(answer["base"], answer["tuned"]) for answer in answers] == [
        ("base: a memo on boats", f"{NAME}: a memo on boats"),
        ("base: a report on bridges", f"{NAME}: a report on bridges"),
    ]
    assert [answer["examples"] for answer in answers] == [["row_1"], ["row_2"]]
    assert {answer["draft_id"] for answer in answers} == {"drf_1"}


def test_asks_the_base_with_the_sampling_of_the_specialist(connections: Connections, services: Services) -> None:
    with connections.client() as client:
        demo.ask_all(client, DEFINITION, [], ["one"], quiet)

    by_model = {request.model: request.sampling for request in services.inference.asked}
    assert (by_model["base"].max_tokens, round(by_model["base"].repetition_penalty, 2)) == (90, 1.05)
    assert by_model["base"].temperature == 0 and by_model["base"].HasField("temperature")
    assert by_model[NAME] == inference_pb2.Sampling()


def test_examples_are_earlier_turns_after_the_system_prompt_and_guidelines(
    connections: Connections, services: Services
) -> None:
    definition = models_pb2.SpecialistChanged()
    definition.CopyFrom(DEFINITION)
    definition.system_prompt, definition.evaluation.guidelines = "Write for Harrow.", "No jargon."

    with connections.client() as client:
        demo.ask_all(client, definition, rows(), ["a memo on boats"], quiet)

    chats = [[(message.role, message.content) for message in request.messages] for request in services.inference.asked]
    assert [("system", "Write for Harrow."), ("user", "a memo on boats")] in chats
    assert [
        ("system", "Write for Harrow.\n\nNo jargon."),
        ("user", "Write a memo on cranes."),
        ("assistant", "Memo."),
        ("user", "a memo on boats"),
    ] in chats


def test_a_prompt_without_room_gets_fewer_examples(connections: Connections, services: Services) -> None:
    services.inference.max_messages = 3
    definition = models_pb2.SpecialistChanged(name=NAME)
    definition.evaluation.few_shot = 2

    with connections.client() as client:
        demo.ask_all(client, definition, rows(), ["a memo on boats"], quiet)

    lengths = sorted(len(request.messages) for request in services.inference.asked)
    assert lengths == [1, 1, 3, 5]


def figures() -> dict[str, Any]:
    """The figures of a run that promoted its adapter."""
    dataset = models_pb2.DatasetBuilt(digest="d", train_rows=200, held_out_rows=20)
    item = registry_pb2.CatalogueAdapter(adapter=trained("a"), decision=registry_pb2.DECISION_PASSED)
    bleu = make_figures("bleu", base=1.0, few_shot=3.498, candidate=3.5)
    fabrication = make_figures("fabrication", lower_is_better=True, base=0.5, few_shot=0.4, candidate=0.6)
    costs = [models_pb2.ModelCost(model="candidate", answers=12)]
    item.evaluation.CopyFrom(make_evaluated("a", "reports", bleu, fabrication, held_out_rows=40, costs=costs))
    answers: list[dict[str, Any]] = [
        {"question": "What [now]?", "base": "plain", "few_shot": "shown", "tuned": "house"}
    ]
    answers[0] |= {"examples": ["row_1"], "draft_id": "drf_1"}
    models = demo_figures.model_figures(dataset, item, DEFINITION)
    counts = demo_figures.count_outcomes([], 0, 157) | {"new": []}
    return counts | models | {"answers": answers, "seconds": dict.fromkeys(demo.STEPS, 0.0)}


def test_the_file_has_exactly_the_promised_fields(tmp_path: Path) -> None:
    demo_figures.save(tmp_path / "demo.json", figures())

    document = json.loads((tmp_path / "demo.json").read_text())

    assert list(document) == [
        "documents_published",
        "documents_unchanged",
        "documents_anonymized",
        "documents_rejected",
        "personal_data_found",
        "new",
        "dataset",
        "run",
        "adapter",
        "evaluation",
        "limits",
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


def test_ends_with_the_answers_and_five_lines_of_result(tmp_path: Path) -> None:
    output, scores = io.StringIO(), tmp_path / "demo-scores.txt"
    gate = {"verdict": {"decision": "passed", "reasons": ["bleu gains +2.500 over base."]}}

    PlainConsole(file=output, width=80).show(describe_result(figures() | gate, scores))

    text = output.getvalue()
    assert "What [now]?" in text and all(answer in text for answer in ("plain", "shown", "house"))
    lines = text.splitlines()[-5:]
    assert [line.split()[0] for line in lines] == ["documents", "dataset", "run", "gate", "adapter"]
    assert "nothing since an earlier demo" in lines[0]
    assert lines[3] == "gate       passed: bleu gains +2.500 over base."
    assert lines[4].endswith(f"promoted; all scores with their intervals: {scores}")


def test_the_file_of_scores_has_every_gain_with_its_interval_and_what_was_skipped(tmp_path: Path) -> None:
    file = tmp_path / "demo-scores.txt"

    save_scores(file, figures() | {"limits": ["26 of 40 held-out rows are measured"]})

    text = file.read_text(encoding="utf-8")
    assert "fabrication (lower is better)" in text and "base with examples" in text
    assert "better, +2.500 (+2.495 to +2.505)" in text
    assert "not certain, +0.002 (-0.003 to +0.007)" in text
    assert "worse, -0.100 (-0.105 to -0.095)" in text
    assert "26 of 40 held-out rows are measured" in text


def test_after_a_promotion_the_next_commands_begin_with_up_and_are_known(tmp_path: Path) -> None:
    lines = list(list_next_commands(tmp_path, NAME, figures(), is_running=False))

    assert "stopped, and its data is kept" in lines[0]
    commands = [shlex.split(line) for line in lines if line.startswith("  tailor ")]
    assert [command[1] for command in commands] == ["up", "ask", "trace", "adapter", "publish"]
    for command in commands:
        assert command[-2:] == ["--state-dir", str(tmp_path)]
        assert CliRunner().invoke(app, [*command[1:-2], "--help"]).exit_code == 0, command


def test_says_what_the_limits_of_the_evaluation_leave_out() -> None:
    definition = read_definition(SAMPLE / "specialist.toml")
    evaluation = make_evaluated("a", "reports", rows=26, held_out_rows=40)
    evaluation.costs.add(model="candidate", answers=12, cut_answers=9)

    limits = "\n".join(demo_figures.describe_limits(definition, evaluation))

    assert "26 of 40 held-out rows are measured" in limits
    assert "12 of 26 rows are answered" in limits
    assert "1 of the usual 3 house examples" in limits
    assert "answers are cut at 128 tokens (sampling.max_tokens): 9 of 12 answers of candidate" in limits
    assert list(demo_figures.describe_limits(models_pb2.SpecialistChanged(), make_evaluated("a", "reports"))) == []


@pytest.mark.parametrize(("decision", "hint"), [("refused", "`gate` in"), ("undecided", "`evaluation.max_rows` in")])
def test_remedies_are_commands_that_the_command_line_knows(decision: str, hint: str, tmp_path: Path) -> None:
    verdict = {"verdict": {"decision": decision, "reasons": []}}

    lines = list(list_remedies(tmp_path, tmp_path / "specialist.toml", NAME, figures() | verdict))

    assert any(hint in line for line in lines)
    commands = [shlex.split(line) for line in lines if line.startswith("  tailor ")]
    assert (
        " ".join(command[1] for command in commands)
        == "up adapter adapter specialist build adapter adapter adapter demo"
    )
    for command in commands:
        assert command[-2:] == ["--state-dir", str(tmp_path)]
        assert CliRunner().invoke(app, [*command[1:-2], "--help"]).exit_code == 0, command


def test_the_sample_defines_a_specialist_with_all_house_terms() -> None:
    definition = read_definition(SAMPLE / "specialist.toml")
    terms = (SAMPLE / "house_terms.txt").read_text(encoding="utf-8").split("\n")

    assert list(definition.house_terms) == [term for term in terms if term]
    assert definition.gate.min_rows == 8
    assert (definition.keep_drafts, [*definition.stages]) == (True, ["sft", "dpo"])
    assert not definition.gate.primary.metric and definition.gate.primary.min_gain > 0
    assert tomllib.loads((SAMPLE / "specialist.toml").read_text())["recipe"] == "lora"


def test_the_sample_asks_three_questions() -> None:
    assert len(demo.read_questions(SAMPLE / "questions.json")) == 3
