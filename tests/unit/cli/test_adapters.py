"""Approvals and decisions, canaries, and what evaluations measured."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tailor.api.evaluation.v1 import evaluation_pb2
from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import registry_pb2
from tests.evaluations import make_estimate, make_evaluated, make_figures
from tests.fakes.serving import ADAPTER, REFUSED_ADAPTER
from tests.unit.cli.conftest import Services, Tailor

NAME = "engagement-reports"
OVERRIDE = registry_pb2.OperatorDecision(
    kind=registry_pb2.OPERATOR_DECISION_KIND_OVERRIDE,
    specialist=NAME,
    adapter_digest=REFUSED_ADAPTER,
    key_id="key_1",
    reason="The board wants it today.",
    verdict=registry_pb2.DECISION_REFUSED,
)


def waiting() -> registry_pb2.CatalogueAdapter:
    figures = make_figures("rougeL", base=0.1, few_shot=0.15, candidate=0.23)
    return registry_pb2.CatalogueAdapter(
        adapter=models_pb2.AdapterTrained(digest=ADAPTER, specialist=NAME),
        evaluation=make_evaluated(ADAPTER, NAME, figures),
        decision=registry_pb2.DECISION_PASSED,
        reasons=["rougeL gains +0.130 over base"],
        state=registry_pb2.ADAPTER_STATE_WAITING_FOR_APPROVAL,
        advice=f"`tailor adapter approve {ADAPTER[:12]}`",
    )


def test_an_override_needs_a_reason_and_a_reason_an_override(tailor: Tailor, services: Services) -> None:
    assert tailor("adapter", "promote", NAME, REFUSED_ADAPTER, "--override").code == 2
    assert tailor("adapter", "promote", NAME, REFUSED_ADAPTER, "--reason", "because").code == 2
    assert services.registry.reasons == []


def test_an_override_sends_its_reason_and_says_that_it_is_one(tailor: Tailor, services: Services) -> None:
    promoted = tailor(
        "adapter", "promote", NAME, REFUSED_ADAPTER, "--override", "--reason", "The board wants it today."
    )
    assert "since generation 4, by an override." in promoted.out
    assert services.registry.reasons == ["The board wants it today."]


def test_adapters_print_what_to_do_on_a_line_that_can_be_copied(tailor: Tailor) -> None:
    lines = tailor("adapter", "list").err.splitlines()
    advice = f"`tailor specialist update {NAME}.toml`, then `tailor adapter evaluate {REFUSED_ADAPTER[:12]}`"
    assert f"{REFUSED_ADAPTER[:12]} next: {advice}" in lines


def test_approvals_show_the_figures_that_decide(tailor: Tailor, services: Services) -> None:
    services.registry.waiting = [waiting()]
    shown = tailor("adapter", "approvals").out
    assert "rougeL" in shown and "base +0.130 (+0.125 to +0.135)" in shown
    assert "few_shot +0.080 (+0.075 to +0.085)" in shown
    assert "parity (lower is better)" in shown
    assert f"{ADAPTER[:12]} waiting for approval; newest verdict passed: rougeL gains +0.130 over base" in shown


def test_says_that_nothing_waits(tailor: Tailor) -> None:
    assert tailor("adapter", "approvals").out == "Nothing waits for approval.\n"


def test_approves_and_declines_with_a_reason(tailor: Tailor, services: Services) -> None:
    approved = tailor("adapter", "approve", ADAPTER, "--reason", "good figures")
    assert f"All callers of {NAME} get {ADAPTER[:12]} since generation 4." in approved.out
    assert tailor("adapter", "decline", ADAPTER, "--reason", "too long").code == 0
    assert tailor("adapter", "decline", ADAPTER).code == 2
    assert services.registry.reasons == ["good figures", "too long"]


def test_decisions_and_the_audit_show_who_decided_and_why(tailor: Tailor, services: Services) -> None:
    services.registry.decisions = [OVERRIDE]
    for command in (["adapter", "decisions"], ["audit"]):
        shown = tailor(*command).out
        assert "override" in shown and "key_1" in shown and "The board wants it today." in shown


def test_starts_a_canary_on_the_current_generation_with_the_given_limits(tailor: Tailor, services: Services) -> None:
    options = ("--percent", "25", "--max-error-rate-increase", "0", "--wait")
    started = tailor("canary", "start", "engagement-reports", ADAPTER[:8], *options)

    assert started.code == 0
    (request,) = services.registry.canaries
    assert (request.adapter_digest, request.expected_generation, request.policy.percent) == (ADAPTER, 3, 25)
    assert request.policy.HasField("max_error_rate_increase") and request.policy.max_error_rate_increase == 0
    assert (request.policy.min_calls, request.policy.max_seconds, request.policy.max_latency_ratio) == (0, 0, 0)
    assert (request.policy.outcome, request.policy.min_reports, request.policy.max_outcome_loss) == ("", 0, 0)
    assert "25 % of the callers of engagement-reports get" in started.out


def test_leaves_absent_limits_to_the_specialists_policy(tailor: Tailor, services: Services) -> None:
    assert tailor("canary", "start", "engagement-reports", ADAPTER, "--expected-generation", "2").code == 0
    (request,) = services.registry.canaries
    assert (request.policy, request.expected_generation) == (models_pb2.CanaryPolicy(), 2)


@pytest.mark.parametrize("option", [("--percent", "100"), ("--min-calls", "0"), ("--max-latency-ratio", "0.9")])
def test_refuses_impossible_limits(tailor: Tailor, services: Services, option: tuple[str, str]) -> None:
    assert tailor("canary", "start", "engagement-reports", ADAPTER, *option).code == 2
    assert not services.registry.canaries


def test_withdraws_a_canary(tailor: Tailor) -> None:
    assert "NO_CANARY" in tailor("canary", "stop", "engagement-reports").err
    tailor("canary", "start", "engagement-reports", ADAPTER)
    assert "since generation 5" in tailor("canary", "stop", "engagement-reports").out


def test_shows_both_arms_and_the_outcome(tailor: Tailor, services: Services) -> None:
    assert "NO_CANARY_YET" in tailor("canary", "show", "engagement-reports").err
    services.registry.canary = registry_pb2.Canary(
        adapter_digest=ADAPTER,
        generation=4,
        policy=models_pb2.CanaryPolicy(
            percent=10, min_calls=50, max_seconds=600, max_error_rate_increase=0.02, max_latency_ratio=1.5
        ),
        state=registry_pb2.CANARY_STATE_BACK,
        reason="6 of 6 calls failed",
        canary=registry_pb2.CanaryArm(calls=6, errors=6, callers=2),
        incumbent=registry_pb2.CanaryArm(calls=90, callers=18, first_token_seconds=0.25, token_seconds=0.013),
    )

    shown = tailor("canary", "show", "engagement-reports")

    for text in ("on 10 % of the callers since generation 4", "back", "6 of 6 calls failed", "0.250 s", "0.013 s"):
        assert text in shown.out
    assert tailor("canary", "show", "engagement-reports", "--output=json").document["canary"]["errors"] == 6


def test_an_outcome_can_decide(tailor: Tailor, services: Services) -> None:
    options = ("--outcome", "edit_retention", "--min-reports", "30", "--max-outcome-loss", "0.05")
    assert tailor("canary", "start", "engagement-reports", ADAPTER, *options).code == 0
    (request,) = services.registry.canaries
    assert (request.policy.outcome, request.policy.min_reports, request.policy.max_outcome_loss) == (
        "edit_retention",
        30,
        0.05,
    )
    services.registry.canary = registry_pb2.Canary(
        adapter_digest=ADAPTER,
        policy=request.policy,
        canary=registry_pb2.CanaryArm(reports=31, outcome=0.71),
        incumbent=registry_pb2.CanaryArm(),
    )
    shown = tailor("canary", "show", "engagement-reports").out
    assert "edit retention: 0.71 in 31 reports, against no report" in shown and "max loss 0.05" in shown


def test_shows_what_was_measured_with_intervals_costs_and_the_verdict(tailor: Tailor, services: Services) -> None:
    cost = models_pb2.ModelCost(model="candidate", answers=16, median_seconds=1.25, p95_seconds=2.5, cut_answers=4)
    cost.price_per_1000, cost.currency = 0.25, "EUR"
    figures = make_figures("rougeL", base=0.1, few_shot=0.24, candidate=0.23)
    services.registry.evaluated = make_evaluated(
        ADAPTER, "engagement-reports", figures, costs=[cost], not_measured={"marks": "no judge model"}
    )

    shown = tailor("adapter", "show", ADAPTER[:8]).out

    assert "base +0.130 (+0.125 to +0.135)" in shown and "few_shot -0.010 (-0.015 to -0.005)" in shown
    assert "1.25 s" in shown and "2.50 s" in shown and "0.25 EUR" in shown
    assert "cut at the maximum of tokens: 4 of 16 answers of candidate" in shown
    assert "not measured: marks: no judge model" in shown
    document = json.loads(tailor("--output=json", "adapter", "show", ADAPTER).out)
    assert document["adapter"]["evaluation"]["metrics"][0]["gains"]["base"]["rows"] == 16


def test_shows_the_report_on_request(tailor: Tailor, services: Services) -> None:
    services.evaluation.report = "# Evaluation of engagement-reports"
    assert services.evaluation.report not in tailor("adapter", "show", ADAPTER).out
    assert services.evaluation.report in tailor("adapter", "show", ADAPTER, "--report").out


def test_shows_how_far_an_evaluation_is(tailor: Tailor, services: Services) -> None:
    services.registry.undecided = 9
    assert "evaluation running: 3 of 8 rows measured" in tailor("adapter", "show", ADAPTER).out


def test_compares_an_adapter_with_a_model_of_its_evaluation(tailor: Tailor, services: Services) -> None:
    row = evaluation_pb2.RowComparison(
        row_id="row_7",
        task="report",
        prompt="Write it.",
        first_answer="The old answer.",
        second_answer="The new answer.",
    )
    row.first_value, row.second_value, row.gain = 0.2, 0.5, 0.3
    group = evaluation_pb2.GroupComparison(
        rows=48, first=make_estimate(0.2), second=make_estimate(0.4), gain=make_estimate(0.2)
    )
    services.evaluation.comparison = evaluation_pb2.CompareEvaluationsResponse(
        metric="rougeL", groups=[group], rows=[row], only_first=3, next_page_token="3"
    )

    shown = tailor("adapter", "compare", "abababab:base", ADAPTER, "--task", "report").out

    assert "+0.200 (+0.195 to +0.205)" in shown and "0.400 (0.395 to 0.405)" in shown
    assert "The [-old-] {+new+} answer." in shown
    assert "0.200 to 0.500, gain +0.300" in shown
    assert "Not compared: 3 rows that only abababab:base has" in shown and "--page 3" in shown
    (request,) = services.evaluation.compared
    assert (request.first.adapter_digest, request.first.model, request.task) == (ADAPTER, "base", "report")


def test_an_adapter_is_exported_into_a_new_folder(tailor: Tailor, services: Services, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere" / "reports"
    done = tailor("adapter", "export", NAME, str(folder), "--merged")
    assert "reading it back in a fresh process" in done.err
    assert f"{ADAPTER[:12]} is in {folder}: 2 files." in done.out
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == services.training.sent
    listed = tailor("adapter", "export", ADAPTER[:8], str(tmp_path / "other"), "--output=json").document
    assert [file["name"] for file in listed["files"]] == ["README.md", "adapter_model.safetensors"]
    asked = [(request.adapter_digest, request.merged, request.generation) for request in services.training.exported]
    assert asked == [(ADAPTER, True, 3), (ADAPTER, False, 0)]
    assert {path.name for path in tmp_path.iterdir()} == {"elsewhere", "other"}
    refused = tailor("adapter", "export", NAME, str(folder))
    assert refused.err == f"error: CANNOT_WRITE: {folder} is not empty. Choose another folder.\n"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda fakes, _: fakes.training.sent.update({"README.md": b"# Report?"}),
            "CORRUPT_OBJECT: README.md was damaged",
        ),
        (lambda fakes, _: setattr(fakes.training, "breaks", 1), "STOPPED"),
        (lambda fakes, _: setattr(fakes.registry, "retired", True), "ADAPTER_RETIRED"),
        (lambda fakes, _: setattr(fakes.registry, "served", ""), "NO_ADAPTER"),
        (lambda _, parent: parent.write_text(""), "CANNOT_WRITE"),
    ],
)
def test_an_export_that_fails_leaves_nothing(
    tailor: Tailor, services: Services, tmp_path: Path, change: Callable[[Services, Path], object], reason: str
) -> None:
    parent = tmp_path / "parent"
    change(services, parent)
    refused = tailor("adapter", "export", NAME, str(parent / "reports"))
    assert refused.code == 1
    assert refused.err.splitlines()[-1].startswith(f"error: {reason}")
    assert not parent.is_dir() or list(parent.iterdir()) == []
