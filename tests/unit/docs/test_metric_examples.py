"""The page of the metrics has every kind, and definitions that the registry admits."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from tailor.metric_kinds import PARAMETERS, list_violations
from tailor.values import MetricDefinition

DOCS = Path(__file__).parents[3] / "docs"
PAGES = [DOCS / "evaluation" / "metrics.md", DOCS / "how-to" / "add-a-metric.md"]
BLOCKS = [block for page in PAGES for block in re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL)]


def test_there_are_examples() -> None:
    assert len(BLOCKS) == 3


@pytest.mark.parametrize("block", BLOCKS)
def test_the_examples_are_admitted(block: str) -> None:
    metrics = []
    for entry in tomllib.loads(block)["metrics"]:
        name, kind = entry.pop("name"), entry.pop("kind", "")
        metrics.append(MetricDefinition(name, kind or name, json.dumps(entry)))
    assert list_violations(metrics) == {}


@pytest.mark.parametrize("kind", sorted(PARAMETERS))
def test_the_page_has_every_kind(kind: str) -> None:
    table = PAGES[0].read_text().partition("## Which kinds are there?")[2].partition("##")[0]
    assert f"`{kind}`" in table


def test_violations_name_the_field_and_quote_nothing() -> None:
    metrics = [
        MetricDefinition("a", "format", '{"regex": "(secret"}'),
        MetricDefinition("a", "rougeL", '{"secret": 1}'),
        MetricDefinition("b c", "repetition", '{"words": 0}'),
        MetricDefinition("d", "judge", '{"mode": "secret"}'),
        MetricDefinition("e", "bleu", "[]"),
        MetricDefinition("f", "citations", '{"register": "secret"}'),
    ]
    violations = list_violations(metrics)
    assert set(violations) == {
        "metrics[0].regex",
        "metrics[1].name",
        "metrics[1].secret",
        "metrics[2].name",
        "metrics[2].words",
        "metrics[3].mode",
        "metrics[4].parameters_json",
        "metrics[5].register",
    }
    assert not any("secret" in rule for rule in violations.values())
