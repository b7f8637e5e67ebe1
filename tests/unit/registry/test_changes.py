"""Differences of definitions, field by field."""

from dataclasses import replace

from services.registry.domain import CanaryPolicy, Gate, GuardMetric, PrimaryMetric, Specialist
from services.registry.rules.changes import FieldChange, list_changes
from tailor.values import MetricDefinition, SamplingDefaults

SPECIALIST = Specialist("reports", "tiny", "lora", gate=Gate(PrimaryMetric("rougeL", 0.05)), revision=3)


def test_the_same_definition_of_another_revision_has_no_changes() -> None:
    assert list_changes(SPECIALIST, replace(SPECIALIST, revision=4, deleted=True)) == ()


def test_changed_fields_are_named_as_in_toml() -> None:
    gate = replace(SPECIALIST.gate, primary=PrimaryMetric("rougeL", 0.02), guards=(GuardMetric("bleu", 1.5),))
    changed = replace(SPECIALIST, gate=gate, sampling=SamplingDefaults(temperature=0.7))
    assert list_changes(SPECIALIST, changed) == (
        FieldChange("gate.primary.min_gain", "0.05", "0.02"),
        FieldChange("gate.guards", "[]", ""),
        FieldChange("sampling.temperature", "0.0", "0.7"),
        FieldChange("gate.guards[bleu].metric", "", '"bleu"'),
        FieldChange("gate.guards[bleu].margin", "", "1.5"),
    )


def test_metrics_are_told_apart_by_their_names_not_their_places() -> None:
    first, second = MetricDefinition("rouge", "rougeL"), MetricDefinition("words", "terms")
    before, after = (
        replace(SPECIALIST, metrics=(first, second)),
        replace(SPECIALIST, metrics=(second, replace(first, kind="rouge1"))),
    )
    assert list_changes(before, after) == (FieldChange("metrics[rouge].kind", '"rougeL"', '"rouge1"'),)


def test_a_policy_that_appears_shows_its_fields() -> None:
    changes = list_changes(SPECIALIST, replace(SPECIALIST, canary=CanaryPolicy(percent=20)))
    assert FieldChange("canary.percent", "", "20") in changes
