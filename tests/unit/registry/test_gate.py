from dataclasses import replace

import pytest

from services.registry import wire
from services.registry.comparing import CanaryRules
from services.registry.domain import POLICY, Adapter, Specialist, check_judgement, check_specialist
from services.registry.gate import Evaluation, Gate, Threshold, refusals
from services.registry.serving import Serving, next_serving, with_canary, without_canary
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
    assert refusals(GATE, _evaluation({"rougeL": 0.12, "perplexity": 19.0})) == ()


def test_names_every_threshold_that_is_not_met() -> None:
    found = refusals(GATE, _evaluation({"rougeL": 0.11, "perplexity": 25.0}, rows=3))
    assert len(found) == 3
    assert "rows" in found[0]
    assert "rougeL" in found[1]
    assert "perplexity" in found[2]


def test_perplexity_gains_by_falling() -> None:
    assert refusals(GATE, _evaluation({"rougeL": 0.2, "perplexity": 21.5}))
    assert not refusals(GATE, _evaluation({"rougeL": 0.2, "perplexity": 18.5}))


def test_refuses_what_is_worse_than_the_incumbent() -> None:
    incumbent = {"rougeL": 0.30, "perplexity": 10.0}
    found = refusals(GATE, _evaluation({"rougeL": 0.28, "perplexity": 10.2}, incumbent=incumbent))
    assert len(found) == 1
    assert "worse than what serves" in found[0]


@pytest.mark.parametrize(("parity", "most"), [(0.11, 0.0), (0.06, 0.05), (float("nan"), 0.0), (float("inf"), 0.2)])
def test_refuses_what_is_not_what_was_trained(parity: float, most: float) -> None:
    gate = replace(GATE, max_parity=most)
    found = refusals(gate, _evaluation({"rougeL": 0.2, "perplexity": 10.0, "parity": parity}))
    assert len(found) == 1
    assert "parity" in found[0] and "nats a token" in found[0]


def test_refuses_what_was_not_compared_with_its_training() -> None:
    evaluation = _evaluation({"rougeL": 0.2, "perplexity": 10.0})
    found = refusals(GATE, replace(evaluation, candidate={"rougeL": 0.2, "perplexity": 10.0}))
    assert len(found) == 1
    assert "parity was not measured" in found[0]


def test_a_tenth_of_a_nat_is_allowed_where_the_gate_says_nothing_and_what_it_says_where_it_does() -> None:
    assert not refusals(GATE, _evaluation({"rougeL": 0.2, "perplexity": 10.0, "parity": 0.1}))
    gate = replace(GATE, max_parity=0.5)
    assert not refusals(gate, _evaluation({"rougeL": 0.2, "perplexity": 10.0, "parity": 0.5}))


@pytest.mark.parametrize("most", [-0.1, float("nan"), float("inf")])
def test_a_gate_allows_a_number_of_nats(most: float) -> None:
    with pytest.raises(InvalidArgument) as error:
        check_specialist(replace(SPECIALIST, gate=replace(GATE, max_parity=most)))
    assert set(error.value.field_violations) == {"gate.max_parity"}


@pytest.mark.parametrize("candidate", [{}, {"rougeL": float("nan"), "perplexity": float("nan")}])
def test_refuses_what_was_not_measured(candidate: dict[str, float]) -> None:
    assert len(refusals(GATE, _evaluation(candidate))) == 2


def test_a_specialist_without_thresholds_is_refused() -> None:
    with pytest.raises(InvalidArgument) as error:
        check_specialist(Specialist("Bad Name", "b", "lora"))
    assert set(error.value.field_violations) == {"name", "gate.thresholds"}


def test_the_base_is_no_specialist() -> None:
    with pytest.raises(InvalidArgument):
        check_specialist(Specialist("base", "b", "lora", gate=GATE))


def test_promotion_is_a_compare_and_set_on_the_generation() -> None:
    current = Serving("engagement-reports", 3, "old")
    promoted = next_serving(current, ADAPTER, SPECIALIST, 3)
    assert (promoted.generation, promoted.adapter_digest, promoted.previous_digest) == (4, "ab12", "old")
    with pytest.raises(Aborted):
        next_serving(promoted, ADAPTER, SPECIALIST, 3)


def test_a_reward_adapter_never_serves() -> None:
    reward = Adapter("ab12", "reward", "engagement-reports", ADAPTER.manifest, "cd34", "b")
    with pytest.raises(FailedPrecondition):
        next_serving(Serving("engagement-reports"), reward, SPECIALIST, 0)
    with pytest.raises(FailedPrecondition):
        with_canary(Serving("engagement-reports", 1, base="b"), reward, SPECIALIST, 10, 1)


def test_a_canary_leaves_what_serves_and_what_it_goes_back_to() -> None:
    current = Serving("engagement-reports", 3, "new", base=ADAPTER.base, previous_digest="old", system_prompt="Before.")
    tried = with_canary(current, ADAPTER, replace(SPECIALIST, system_prompt="Now."), 10, 3)
    assert tried.canary is not None
    assert (tried.canary.adapter_digest, tried.canary.system_prompt, tried.canary.percent) == ("ab12", "Now.", 10)
    assert replace(tried, generation=3, canary=None) == current
    assert without_canary(tried, SPECIALIST, 4) == replace(current, generation=5)
    private = without_canary(tried, replace(SPECIALIST, private_prompts=True), 4)
    assert private.private_prompts
    with pytest.raises(Aborted):
        without_canary(tried, SPECIALIST, 3)


@pytest.mark.parametrize("current", [Serving("engagement-reports"), Serving("engagement-reports", 2, base="other")])
def test_nothing_is_tried_where_nothing_serves_on_the_same_base(current: Serving) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        with_canary(current, ADAPTER, SPECIALIST, 10, current.generation)
    assert caught.value.reason == "NOTHING_TO_COMPARE"


def test_a_canarys_policy_is_checked_with_the_definition_and_survives_the_wire() -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_specialist(replace(SPECIALIST, canary=CanaryRules(percent=100)))
    assert set(caught.value.field_violations) == {"canary.percent"}
    kept = replace(SPECIALIST, canary=CanaryRules(percent=5, max_error_rate_increase=0.0))
    assert wire.to_specialist(wire.from_specialist(kept)) == kept
    said = models_pb2.SpecialistChanged(name="n", canary=models_pb2.CanaryPolicy(percent=20))
    assert wire.to_specialist(said).canary == CanaryRules(percent=20)
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
def test_refuses_a_wrong_judgement(ranking: tuple[str, ...], rubric: tuple[int, int, int], comment: str) -> None:
    with pytest.raises(InvalidArgument):
        check_judgement(ranking, rubric, comment)
