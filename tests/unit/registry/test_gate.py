"""The gate, the next generation, and the checks of definitions and judgements."""

from dataclasses import replace

import pytest

from services.registry import wire
from services.registry.domain import POLICY, Adapter, CanaryPolicy, Evaluation, Gate, Serving, Specialist, Threshold
from services.registry.rules.checks import check_judgement, check_specialist
from services.registry.rules.gate import list_refusals
from services.registry.rules.serving import add_canary, remove_canary, serve_adapter
from tailor.api.events.v1 import models_pb2
from tailor.errors import Aborted, FailedPrecondition, InvalidArgument
from tailor.storage.ref import Ref

GATE = Gate((Threshold("rougeL", 0.02, 0.01), Threshold("perplexity", 1.0, 0.5)), min_rows=8)
SPECIALIST = Specialist("engagement-reports", "smollm2-135m-instruct", "lora", gate=GATE)
ADAPTER = Adapter(
    "ab12", POLICY, "engagement-reports", Ref("s3://models/a", "ab12", 3), "cd34", "smollm2-135m-instruct"
)


def _evaluation(
    candidate: dict[str, float],
    *,
    rows: int = 16,
    incumbent: dict[str, float] | None = None,
    base: dict[str, float] | None = None,
) -> Evaluation:
    base = base or {"rougeL": 0.10, "perplexity": 20.0}
    candidate = {"parity": 0.02} | candidate
    return Evaluation("evl_1", "ab12", "engagement-reports", rows, base, candidate, incumbent, 0)


def test_admits_an_evaluation_that_meets_every_threshold() -> None:
    assert list_refusals(GATE, _evaluation({"rougeL": 0.12, "perplexity": 19.0})) == ()


def test_names_every_condition_that_is_not_met() -> None:
    refusals = list_refusals(GATE, _evaluation({"rougeL": 0.11, "perplexity": 25.0}, rows=3))
    assert len(refusals) == 3
    assert "rows" in refusals[0]
    assert "rougeL" in refusals[1]
    assert "perplexity" in refusals[2]


def test_lower_perplexity_is_a_gain() -> None:
    assert list_refusals(GATE, _evaluation({"rougeL": 0.2, "perplexity": 21.5}))
    assert not list_refusals(GATE, _evaluation({"rougeL": 0.2, "perplexity": 18.5}))


def test_refuses_a_candidate_that_is_worse_than_the_incumbent() -> None:
    incumbent = {"rougeL": 0.30, "perplexity": 10.0}
    refusals = list_refusals(GATE, _evaluation({"rougeL": 0.28, "perplexity": 10.2}, incumbent=incumbent))
    assert len(refusals) == 1
    assert "worse than the incumbent" in refusals[0]


@pytest.mark.parametrize(("parity", "limit"), [(0.11, 0.0), (0.06, 0.05), (float("nan"), 0.0), (float("inf"), 0.2)])
def test_refuses_a_candidate_that_differs_from_the_trained_weights(parity: float, limit: float) -> None:
    gate = replace(GATE, max_parity=limit)
    refusals = list_refusals(gate, _evaluation({"rougeL": 0.2, "perplexity": 10.0, "parity": parity}))
    assert len(refusals) == 1
    assert "parity" in refusals[0] and "nats per token" in refusals[0]


def test_refuses_a_candidate_without_parity() -> None:
    evaluation = _evaluation({"rougeL": 0.2, "perplexity": 10.0})
    refusals = list_refusals(GATE, replace(evaluation, candidate={"rougeL": 0.2, "perplexity": 10.0}))
    assert len(refusals) == 1
    assert "parity was not measured" in refusals[0]


def test_parity_is_limited_to_a_tenth_of_a_nat_unless_the_gate_sets_a_limit() -> None:
    assert not list_refusals(GATE, _evaluation({"rougeL": 0.2, "perplexity": 10.0, "parity": 0.1}))
    gate = replace(GATE, max_parity=0.5)
    assert not list_refusals(gate, _evaluation({"rougeL": 0.2, "perplexity": 10.0, "parity": 0.5}))


@pytest.mark.parametrize("limit", [-0.1, float("nan"), float("inf")])
def test_max_parity_must_be_a_finite_number(limit: float) -> None:
    with pytest.raises(InvalidArgument) as error:
        check_specialist(replace(SPECIALIST, gate=replace(GATE, max_parity=limit)))
    assert set(error.value.field_violations) == {"gate.max_parity"}


@pytest.mark.parametrize("candidate", [{}, {"rougeL": float("nan"), "perplexity": float("nan")}])
def test_refuses_a_metric_that_was_not_measured(candidate: dict[str, float]) -> None:
    assert len(list_refusals(GATE, _evaluation(candidate))) == 2


def test_refuses_a_specialist_without_thresholds() -> None:
    with pytest.raises(InvalidArgument) as error:
        check_specialist(Specialist("Bad Name", "b", "lora"))
    assert set(error.value.field_violations) == {"name", "gate.thresholds"}


def test_refuses_a_specialist_named_base() -> None:
    with pytest.raises(InvalidArgument):
        check_specialist(Specialist("base", "b", "lora", gate=GATE))


def test_promotion_is_a_compare_and_set_on_the_generation() -> None:
    current = Serving("engagement-reports", 3, "old")
    promoted = serve_adapter(current, ADAPTER, SPECIALIST, 3)
    assert (promoted.generation, promoted.adapter_digest, promoted.previous_digest) == (4, "ab12", "old")
    with pytest.raises(Aborted):
        serve_adapter(promoted, ADAPTER, SPECIALIST, 3)


def test_a_reward_adapter_never_serves() -> None:
    reward = Adapter("ab12", "reward", "engagement-reports", ADAPTER.manifest, "cd34", "b")
    with pytest.raises(FailedPrecondition):
        serve_adapter(Serving("engagement-reports"), reward, SPECIALIST, 0)
    with pytest.raises(FailedPrecondition):
        add_canary(Serving("engagement-reports", 1, base="b"), reward, SPECIALIST, 10, 1)


def test_a_canary_changes_neither_what_serves_nor_the_previous_adapter() -> None:
    current = Serving("engagement-reports", 3, "new", base=ADAPTER.base, previous_digest="old", system_prompt="Before.")
    started = add_canary(current, ADAPTER, replace(SPECIALIST, system_prompt="Now."), 10, 3)
    assert started.canary is not None
    assert (started.canary.adapter_digest, started.canary.system_prompt, started.canary.percent) == ("ab12", "Now.", 10)
    assert replace(started, generation=3, canary=None) == current
    assert remove_canary(started, SPECIALIST, 4) == replace(current, generation=5)
    private = remove_canary(started, replace(SPECIALIST, private_prompts=True), 4)
    assert private.private_prompts
    with pytest.raises(Aborted):
        remove_canary(started, SPECIALIST, 3)


@pytest.mark.parametrize("current", [Serving("engagement-reports"), Serving("engagement-reports", 2, base="other")])
def test_a_canary_needs_an_incumbent_on_the_same_base(current: Serving) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        add_canary(current, ADAPTER, SPECIALIST, 10, current.generation)
    assert caught.value.reason == "NOTHING_TO_COMPARE"


def test_a_canary_policy_is_checked_with_the_definition_and_kept_over_the_wire() -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_specialist(replace(SPECIALIST, canary=CanaryPolicy(percent=100)))
    assert set(caught.value.field_violations) == {"canary.percent"}
    definition = replace(SPECIALIST, canary=CanaryPolicy(percent=5, max_error_rate_increase=0.0))
    assert wire.to_specialist(wire.from_specialist(definition)) == definition
    message = models_pb2.SpecialistChanged(name="n", canary=models_pb2.CanaryPolicy(percent=20))
    assert wire.to_specialist(message).canary == CanaryPolicy(percent=20)
    assert wire.to_specialist(models_pb2.SpecialistChanged(name="n")).canary is None


@pytest.mark.parametrize(
    ("ranking", "rubric", "comment"),
    [
        ((), (1, 1, 1), ""),
        (("a", "a"), (0, 0, 0), ""),
        (("a",), (0, 0, 0), ""),
        (("a", "b"), (6, 0, 0), ""),
        (("a", "b"), (0, 0, 0), "x" * 4001),
    ],
)
def test_refuses_an_invalid_judgement(ranking: tuple[str, ...], rubric: tuple[int, int, int], comment: str) -> None:
    with pytest.raises(InvalidArgument):
        check_judgement(ranking, rubric, comment)
