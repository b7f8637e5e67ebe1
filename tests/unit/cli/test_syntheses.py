"""`tailor synthesis create` and `tailor synthesis list`."""

from pathlib import Path

import pytest

from tailor.api.common.v1.common_pb2 import ListQuery
from tailor.api.synthetic.v1 import synthesis_pb2
from tests.unit.cli.conftest import Services, Tailor

REQUIRED = ("synthesis", "create", "reports", "--task", "risk-assessment", "--count", "300")


def changed(services: Services, **changes: object) -> synthesis_pb2.Synthesis:
    copy = synthesis_pb2.Synthesis()
    copy.CopyFrom(services.synthesis.synthesis)
    for name, value in changes.items():
        setattr(copy, name, value)
    return copy


def test_creates_a_synthesis_with_everything_that_is_given(tailor: Tailor, services: Services, tmp_path: Path) -> None:
    examples = tmp_path / "examples.jsonl"
    examples.write_text('{"prompt": "Assess.", "answer": "Low."}\n\n')

    shown = tailor(
        *REQUIRED,
        *("--seeds", "5", "--budget-eur", "2", "--instruction", "Assess the risk.", "--persona", "a new analyst"),
        *("--attribute", "sector=banks, insurers", "--attribute", "length=short", "--language", "de"),
        *("--example", str(examples), "--price-input", "0.15", "--price-output", "0.6", "--min-mark", "4", "--review"),
    )

    assert shown.code == 0
    assert "41/300 rows, 7 refused, 61,500 tokens, 0.6100 of 2.00 EUR" in shown.out and "near duplicate" in shown.out
    (request,) = services.synthesis.created
    spec = request.spec
    assert request.request_id.startswith("req_")
    assert (spec.specialist, spec.task, spec.target, spec.seeds) == ("reports", "risk-assessment", 300, 5)
    assert (spec.budget_eur, spec.instruction, list(spec.personas)) == (2.0, "Assess the risk.", ["a new analyst"])
    assert {item.name: list(item.values) for item in spec.attributes} == {
        "sector": ["banks", "insurers"],
        "length": ["short"],
    }
    assert [(item.prompt, item.answer) for item in spec.examples] == [("Assess.", "Low.")]
    assert (spec.teacher_price.input, spec.teacher_price.output, spec.min_mark) == (0.15, 0.6, 4)
    assert spec.needs_review and list(spec.languages) == ["de"]


def test_a_translation_has_its_min_score_and_a_judge_its_price(tailor: Tailor, services: Services) -> None:
    options = ("--min-back-translation", "55", "--temperature", "0")
    tailor(*REQUIRED, "--budget-eur", "2", *options, "--judge-price-input", "1", "--judge-price-output", "3")
    tailor(*REQUIRED, "--budget-eur", "2")
    given, default = (request.spec for request in services.synthesis.created)
    assert (given.min_back_translation, given.temperature, given.judge_price.output) == (55, 0, 3)
    assert given.HasField("temperature")
    assert not any(default.HasField(name) for name in ("min_back_translation", "temperature", "judge_price"))


@pytest.mark.parametrize(
    "line",
    [
        "no json",
        '{"prompt": "a"}',
        '{"prompt": "a", "answer": "b", "x": 1}',
        '{"prompt": "a", "answer": " "}',
        '{"prompt": 1, "answer": "b"}',
        "[]",
    ],
)
def test_names_the_line_of_a_wrong_example(tailor: Tailor, services: Services, tmp_path: Path, line: str) -> None:
    path = tmp_path / "examples.jsonl"
    path.write_text('{"prompt": "a", "answer": "b"}\n' + line)
    refused = tailor(*REQUIRED, "--budget-tokens", "9", "--example", str(path))
    assert refused.code == 1 and "INVALID_FILE" in refused.err and "line 2" in refused.err
    assert not services.synthesis.created


@pytest.mark.parametrize(
    "options",
    [
        ("--attribute", "sector"),
        ("--attribute", "=a"),
        ("--attribute", "a="),
        ("--price-input", "1"),
        ("--judge-price-output", "1"),
    ],
)
def test_refuses_options_that_say_nothing(tailor: Tailor, services: Services, options: tuple[str, ...]) -> None:
    refused = tailor(*REQUIRED, "--budget-tokens", "9", *options)
    assert refused.code == 1 and "INVALID_ARGUMENT" in refused.err
    assert not services.synthesis.created


def test_follows_until_the_end(tailor: Tailor, services: Services) -> None:
    services.synthesis.watched = [
        changed(services, accepted=3),
        changed(services, state=synthesis_pb2.SYNTHESIS_STATE_PAUSED, reason="TEACHER_BUSY", message="It resumes."),
        changed(services, state=synthesis_pb2.SYNTHESIS_STATE_SUCCEEDED, accepted=300, reason="TARGET_REACHED"),
    ]
    shown = tailor(*REQUIRED, "--budget-eur", "2", "--follow")
    assert shown.code == 0
    assert "running: 3/300 rows" in shown.err and "It resumes." in shown.err
    assert "succeeded" in shown.out and "300/300 rows" in shown.out


def test_a_pause_that_needs_somebody_ends_the_command(tailor: Tailor, services: Services) -> None:
    services.synthesis.watched = [
        changed(
            services,
            state=synthesis_pb2.SYNTHESIS_STATE_PAUSED,
            reason="TEACHER_KEY_REFUSED",
            message="Set a valid key.",
        ),
        changed(services, state=synthesis_pb2.SYNTHESIS_STATE_SUCCEEDED),
    ]
    shown = tailor("synthesis", "watch", "syn_1")
    assert shown.code == 1 and "error: TEACHER_KEY_REFUSED: Set a valid key." in shown.err


def test_lists_and_shows(tailor: Tailor) -> None:
    listed = tailor("synthesis", "list")
    assert "syn_1" in listed.out and "running" in listed.out and "41/300 rows" in listed.out
    assert tailor("synthesis", "list", "--output=json").document["syntheses"][0]["accepted"] == 41
    assert tailor("synthesis", "show", "syn_1", "--output=json").document["use"]["eur"] == 0.61
    assert "UNKNOWN_SYNTHESIS" in tailor("synthesis", "show", "syn_2").err


def test_shows_samples_as_text(tailor: Tailor, services: Services) -> None:
    shown = tailor(
        "synthesis", "samples", "syn_1", "--filter", "state=pending", "--search", "ferry", "--order-by", "mark desc"
    )
    assert "row_1" in shown.out and "pending" in shown.out and "prompt: Assess [the ferry]." in shown.out
    assert "mark 4, back-translation 71" in shown.out
    asked = ListQuery(filters={"state": "pending"}, search="ferry", order_by="mark desc")
    assert services.synthesis.listed[0].query == asked
    assert tailor("synthesis", "samples", "syn_1", "--filter", "pending").code == 1


def test_reviews_cancels_and_resumes(tailor: Tailor, services: Services) -> None:
    whole = f"row_{'2' * 32}"
    for words in (("accept", "syn_1", "row_1"), ("reject", "syn_1", whole), ("cancel", "syn_1"), ("resume", "syn_1")):
        assert tailor("synthesis", *words).code == 0
    assert [(item.row_id, item.accept) for item in services.synthesis.decisions] == [("row_1", True), (whole, False)]
    assert services.synthesis.commands == ["cancel", "resume"]
