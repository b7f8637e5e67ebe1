"""Rows and models for tests of evaluation."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from services.evaluation.domain import (
    Adapter,
    Answer,
    HeldOutRow,
    LoadedCandidate,
    Score,
    SpecialistTerms,
)
from services.evaluation.ports import Models
from tailor.errors import NotFound, Reason, Unavailable
from tailor.storage.ref import Ref
from tailor.values import MetricDefinition, SamplingDefaults


def make_adapter(digest: str = "ad1", **changes: Any) -> Adapter:
    manifest = Ref(f"s3://models/adapters/{digest}/manifest.json", digest, 10)
    return replace(Adapter(digest, "reports", "data1", "smollm2", manifest), **changes)


def make_row(number: int, task: str = "section") -> HeldOutRow:
    messages = (("user", f"Write {number}."),)
    return HeldOutRow(f"row_{number:03d}", task, (f"doc_{number}",), messages, f"line of sight {number}")


def make_terms(*metrics: str, **changes: Any) -> SpecialistTerms:
    definitions = tuple(MetricDefinition(name, name) for name in metrics or ("rougeL", "perplexity"))
    return SpecialistTerms("reports", 1, ("line of sight",), metrics=definitions, **changes)


def make_pair(number: int) -> HeldOutRow:
    """The base finds both answers equally likely, an adapter prefers the chosen one."""
    return replace(make_row(number, "critique"), row_id=f"pair_{number:03d}", rejected=f"rejected {number}")


class FakeModels(Models):
    """The base answers nothing useful; a candidate repeats the reference. Raises each of `failures` first, one per call."""

    def __init__(self) -> None:
        self.loaded: set[str] = set()
        self.calls: list[str] = []
        self.scored: list[str] = []
        self.samplings: list[SamplingDefaults] = []
        self.parity: float | None = 0.01
        self.failures: list[Exception] = []
        self.lock = threading.Lock()

    def load(self, adapter_digest: str, manifest: Ref) -> LoadedCandidate:
        self._fail()
        self.loaded.add(f"adapter:{adapter_digest}")
        return LoadedCandidate(f"adapter:{adapter_digest}", self.parity)

    def generate(self, model: str, messages: Sequence[tuple[str, str]], sampling: SamplingDefaults) -> Answer:
        with self.lock:
            self._fail()
            self.calls.append(model)
            self.samplings.append(sampling)
        if model == "base":
            return Answer("Nothing.", tokens=2, seconds=0.5)
        if model not in self.loaded:
            raise NotFound(Reason.UNKNOWN_MODEL, "There is no such model.")
        return Answer(f"line of sight {messages[-1][1].split()[1].rstrip('.')}", tokens=5, seconds=1.0)

    def score(self, model: str, messages: Sequence[tuple[str, str]], completion: str) -> Score:
        self.scored.append(model)
        if completion.startswith("rejected"):
            return Score(-4.0 if model == "base" else -6.0, 2)
        return Score(-4.0 if model == "base" else -2.0, 2)

    def _fail(self) -> None:
        if self.failures:
            raise self.failures.pop(0)


def silence() -> Unavailable:
    return Unavailable(Reason("INFERENCE_UNAVAILABLE"), "Down.")
