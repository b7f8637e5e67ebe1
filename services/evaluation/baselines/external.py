"""An external model, such as the subscription that the company pays now: asked like the others, with the guidelines in its prompt."""

import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from services.evaluation.baselines.prompts import with_instructions
from services.evaluation.domain import EXTERNAL, Answer, HeldOutRow, Score
from services.evaluation.ports import ChatEndpoint, EvaluatedModel, Messages
from tailor.errors import FailedPrecondition, Reason, TailorError
from tailor.logging import get_logger
from tailor.retry import retry
from tailor.values import SamplingDefaults

log = get_logger(__name__)


@dataclass(frozen=True)
class ExternalLimits:
    """Attempts per request, requests at a time, and how many prompts a model may refuse before it is left out."""

    attempts: int = 5
    parallel: int = 8
    max_refusals: int = 5


@dataclass
class ExternalModel(EvaluatedModel):
    """A model behind an endpoint of evaluation's settings. Gives no log-probabilities of references. Thread-safe.

    A prompt that it refuses, for example because of a filter, counts as an empty answer.
    """

    label: str
    endpoint: ChatEndpoint
    guidelines: str
    limits: ExternalLimits = field(default_factory=ExternalLimits)
    sleep: Callable[[float], None] | None = None
    refused: int = field(default=0, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        self._places = threading.Semaphore(self.limits.parallel)

    @property
    def name(self) -> str:
        return EXTERNAL + self.label

    @property
    def key(self) -> str:
        parts = [self.endpoint.address, self.endpoint.model, self.guidelines]
        return f"{self.name}:{hashlib.sha256(json.dumps(parts).encode()).hexdigest()}"

    @property
    def notes(self) -> Mapping[str, Any]:
        return {"refused prompts": self.refused} if self.refused else {}

    def prepare(self) -> None:
        """An endpoint needs nothing."""

    def answer(self, row: HeldOutRow, sampling: SamplingDefaults) -> Answer:
        """Raises FailedPrecondition as `ask`, except for the first few prompts that the model refuses."""
        try:
            return self.ask(with_instructions(row, self.guidelines), sampling)
        except FailedPrecondition as error:
            if error.reason != Reason.EXTERNAL_REFUSED:
                raise
            self._count_refusal(error)
            return Answer("")

    def ask(self, messages: Messages, sampling: SamplingDefaults) -> Answer:
        """Raises FailedPrecondition if the model cannot be asked: a refused key, no quota, or no answer after all attempts."""
        try:
            with self._places:
                return retry(
                    lambda: self.endpoint.complete(messages, sampling),
                    attempts=self.limits.attempts,
                    initial_seconds=1.0,
                    max_seconds=30.0,
                    sleep=self.sleep,
                )
        except FailedPrecondition:
            raise
        except TailorError as error:
            # It must not hold up the evaluation of the candidate.
            raise FailedPrecondition(error.reason, f"{error.message} Attempts: {self.limits.attempts}.") from None

    def score(self, row: HeldOutRow, completion: str) -> Score | None:
        return None

    def _count_refusal(self, error: FailedPrecondition) -> None:
        with self._lock:
            self.refused += 1
            if self.refused > self.limits.max_refusals:
                raise error
        log.warning("external model refused a prompt", model=self.name, refused=self.refused)


@dataclass(frozen=True)
class UnknownModel(EvaluatedModel):
    """A model that the specialist names and evaluation's settings do not have. It cannot be prepared, so it is never asked."""

    label: str

    @property
    def name(self) -> str:
        return EXTERNAL + self.label

    @property
    def key(self) -> str:
        return f"{self.name}:unknown"

    def prepare(self) -> None:
        """Always raises FailedPrecondition (UNKNOWN_EXTERNAL_MODEL)."""
        raise self._error()

    def answer(self, row: HeldOutRow, sampling: SamplingDefaults) -> Answer:
        raise self._error()

    def score(self, row: HeldOutRow, completion: str) -> Score | None:
        raise self._error()

    def _error(self) -> FailedPrecondition:
        return FailedPrecondition(
            Reason.UNKNOWN_EXTERNAL_MODEL,
            f"Evaluation's settings have no external model {self.label}. Set TAILOR_EXTERNAL_MODELS, or leave it out of the specialist.",
        )
