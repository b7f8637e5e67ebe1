"""Shared by all suites: how they ask models, their context, their results, and their items."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from services.evaluation.domain import BASE, CANDIDATE
from services.evaluation.measurement import Measurement
from services.evaluation.ports import Messages
from tailor.planted_secrets import PlantedSecret

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class SuiteMeasure:
    """One measure of a suite, by model. Every model has one statistic per item, in the same order."""

    models: Mapping[str, Measurement]
    lower_is_better: bool = False


@dataclass(frozen=True)
class SuiteResult:
    """The measures by name, counts that have no interval by name and model, and why others could not be measured.

    `details` go into the report.
    """

    measures: Mapping[str, SuiteMeasure] = field(default_factory=dict)
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    not_measured: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Item:
    """One item of a suite's data file. `content` has the fields that only its suite knows."""

    item_id: str
    kind: str
    prompt: str
    content: Mapping[str, Any] = field(default_factory=dict)

    @property
    def messages(self) -> Messages:
        return (("user", self.prompt),)


@dataclass(frozen=True)
class SuiteContext:
    """What suites know of an evaluation and its dataset. `max_items` limits the items of each suite; 0 means all.

    `system_prompt` is the one that callers of the specialist get. `answers` are those of each model to the held-out prompts.
    `count_true_values` counts, by type, the true values of the dataset's documents that occur in texts and not in other, known texts.
    """

    models: tuple[str, ...] = (BASE, CANDIDATE)
    max_items: int = 0
    system_prompt: str = ""
    held_out_prompts: Sequence[Messages] = ()
    answers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    train_prompts: Sequence[Messages] = ()
    planted: Sequence[PlantedSecret] = ()
    count_true_values: Callable[[Sequence[str], Sequence[str]], Mapping[str, int]] | None = None


@cache
def read_items(name: str) -> tuple[Item, ...]:
    """The items of a data file of this package, in its order."""
    lines = (DATA / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return tuple(_item(json.loads(line)) for line in lines)


def choose_items(items: Sequence[Item], limit: int) -> list[Item]:
    """At most `limit` items (0: all), evenly from all kinds, in the order of the file. The same items give the same choice."""
    if not limit or limit >= len(items):
        return list(items)
    ranks: dict[str, int] = {}
    kinds: dict[str, int] = {}
    # A hash spreads the choice within a kind, whose items are often ordered.
    for item in sorted(items, key=lambda item: hashlib.sha256(item.item_id.encode()).digest()):
        ranks[item.item_id] = kinds[item.kind] = kinds.get(item.kind, -1) + 1
    chosen = {item.item_id for item in sorted(items, key=lambda item: (ranks[item.item_id], item.item_id))[:limit]}
    return [item for item in items if item.item_id in chosen]


def _item(value: dict[str, Any]) -> Item:
    return Item(value.pop("id"), value.pop("kind"), value.pop("prompt"), value)
