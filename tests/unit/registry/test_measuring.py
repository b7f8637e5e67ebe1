"""A specialist's sampling, metrics and evaluation: checked, and unchanged over the wire."""

from dataclasses import replace

import pytest

from services.registry import wire
from services.registry.domain import APPROVAL, Specialist
from services.registry.rules.checks import check_specialist
from tailor.api.events.v1 import models_pb2
from tailor.errors import InvalidArgument
from tailor.values import Criterion, EvaluationPolicy, MetricDefinition, SamplingDefaults

PLAIN = Specialist("reports", "smollm2", "lora")
TONE = Criterion("tone", "Sounds like a colleague.")


def find_violation(specialist: Specialist) -> str:
    with pytest.raises(InvalidArgument) as refused:
        check_specialist(specialist)
    (field,) = refused.value.field_violations
    return field


@pytest.mark.parametrize(
    ("sampling", "field"),
    [
        (SamplingDefaults(temperature=2.1), "sampling.temperature"),
        (SamplingDefaults(temperature=float("nan")), "sampling.temperature"),
        (SamplingDefaults(top_p=0), "sampling.top_p"),
        (SamplingDefaults(repetition_penalty=0.9), "sampling.repetition_penalty"),
        (SamplingDefaults(max_tokens=-1), "sampling.max_tokens"),
    ],
)
def test_refuses_invalid_sampling_with_its_field(sampling: SamplingDefaults, field: str) -> None:
    assert find_violation(replace(PLAIN, sampling=sampling)) == field


@pytest.mark.parametrize(
    ("metric", "field"),
    [
        (MetricDefinition("house terms", "terms"), "metrics[1].name"),
        (MetricDefinition("rougeL", "rougeL"), "metrics[1].name"),
        (MetricDefinition("terms", "../terms"), "metrics[1].kind"),
        (MetricDefinition("quality", "quality"), "metrics[1].kind"),
        (MetricDefinition("terms", "terms", '{"words": ["a"]}'), "metrics[1].words"),
        (MetricDefinition("shape", "format", '{"regex": "("}'), "metrics[1].regex"),
        (MetricDefinition("shape", "format", "{}"), "metrics[1].parameters_json"),
        (MetricDefinition("ours", "remote", '{"service": "scores"}'), "metrics[1].metric"),
        (MetricDefinition("terms", "terms", "[1]"), "metrics[1].parameters_json"),
        (MetricDefinition("terms", "terms", "{"), "metrics[1].parameters_json"),
    ],
)
def test_refuses_an_invalid_metric_with_its_field(metric: MetricDefinition, field: str) -> None:
    assert find_violation(replace(PLAIN, metrics=(MetricDefinition("rougeL", "rougeL"), metric))) == field


@pytest.mark.parametrize(
    ("policy", "field"),
    [
        (EvaluationPolicy(max_rows=-1), "evaluation.max_rows"),
        (EvaluationPolicy(few_shot=21), "evaluation.few_shot"),
        (EvaluationPolicy(guidelines="x" * 8001), "evaluation.guidelines"),
        (EvaluationPolicy(min_judge_agreement=1.5), "evaluation.min_judge_agreement"),
        (EvaluationPolicy(external_models=("a b",)), "evaluation.external_models[0]"),
        (EvaluationPolicy(external_models=("gpt", "gpt")), "evaluation.external_models[1]"),
        (EvaluationPolicy(suites=("safety", "speed")), "evaluation.suites[1]"),
        (EvaluationPolicy(criteria=(TONE, TONE)), "evaluation.criteria[1]"),
        (EvaluationPolicy(criteria=(Criterion("tone", " "),)), "evaluation.criteria[0].description"),
    ],
)
def test_refuses_an_invalid_evaluation_with_its_field(policy: EvaluationPolicy, field: str) -> None:
    assert find_violation(replace(PLAIN, evaluation=policy)) == field


def test_keeps_everything_over_the_wire() -> None:
    specialist = replace(
        PLAIN,
        sampling=SamplingDefaults(0.7, 0.9, 1.05, 400),
        promotion=APPROVAL,
        metrics=(MetricDefinition("house", "terms", '{"terms": ["value corridor"]}'),),
        evaluation=EvaluationPolicy(300, 50, 0, "Be brief.", True, ("gpt",), ("safety",), (TONE,), 0.0, 7),
    )
    check_specialist(specialist)
    assert wire.to_specialist(wire.from_specialist(specialist)) == specialist
    assert not specialist.same_definition(PLAIN)


def test_absent_fields_get_their_defaults() -> None:
    specialist = wire.to_specialist(models_pb2.SpecialistChanged(name="reports"))
    assert specialist.sampling == SamplingDefaults(temperature=0.0, top_p=1.0, repetition_penalty=1.0, max_tokens=0)
    assert specialist.evaluation == EvaluationPolicy(max_rows=200, few_shot=3, min_judge_agreement=0.4)
    assert specialist.promotion == "automatic"


def test_a_metric_without_a_kind_is_of_the_kind_of_its_name() -> None:
    message = models_pb2.SpecialistChanged(metrics=[models_pb2.MetricDefinition(name="bleu")])
    assert wire.to_specialist(message).metrics == (MetricDefinition("bleu", "bleu", "{}"),)
