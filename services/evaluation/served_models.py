"""The models of an evaluation that inference answers for: the base, the adapter that serves, and the candidate."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from services.evaluation.domain import (
    BASE,
    CANDIDATE,
    INCUMBENT,
    Adapter,
    Answer,
    HeldOutRow,
    Score,
    Serving,
)
from services.evaluation.ports import EvaluatedModel, Models
from tailor.errors import NotFound, Reason, Unavailable
from tailor.retry import retry
from tailor.storage.ref import Ref
from tailor.values import SamplingDefaults

T = TypeVar("T")

CALL_ATTEMPTS = 5


def call(request: Callable[[], T], sleep: Callable[[float], None] | None = None) -> T:
    """Call a model, with a few attempts while it refuses temporarily. Raises Unavailable (CANDIDATE_LOST) if it must be prepared again."""
    try:
        return retry(request, attempts=CALL_ATTEMPTS, initial_seconds=0.5, max_seconds=4.0, sleep=sleep)
    except NotFound:
        # Inference has restarted since the candidate was loaded.
        raise Unavailable(Reason.CANDIDATE_LOST, "Inference has unloaded the candidate.") from None


@dataclass(frozen=True)
class BaseModel(EvaluatedModel):
    """The base without an adapter."""

    models: Models
    base: str

    @property
    def name(self) -> str:
        return BASE

    @property
    def key(self) -> str:
        return f"{BASE}:{self.base}"

    def prepare(self) -> None:
        """The base is always loaded."""

    def answer(self, row: HeldOutRow, sampling: SamplingDefaults) -> Answer:
        return self.models.generate(BASE, row.messages, sampling)

    def score(self, row: HeldOutRow, completion: str) -> Score | None:
        return self.models.score(BASE, row.messages, completion)


@dataclass(frozen=True)
class AdapterModel(EvaluatedModel):
    """An adapter in the engine that serves."""

    models: Models
    role: str
    digest: str
    manifest: Ref

    @property
    def name(self) -> str:
        return self.role

    @property
    def key(self) -> str:
        return f"adapter:{self.digest}"

    def prepare(self) -> None:
        self.models.load(self.digest, self.manifest)

    def answer(self, row: HeldOutRow, sampling: SamplingDefaults) -> Answer:
        return self.models.generate(self.key, row.messages, sampling)

    def score(self, row: HeldOutRow, completion: str) -> Score | None:
        return self.models.score(self.key, row.messages, completion)


def list_served_models(models: Models, adapter: Adapter, incumbent: Serving | None) -> list[EvaluatedModel]:
    """The candidate's base, the incumbent, which may have another base, and the candidate."""
    ours = models.on_base(adapter.base)
    served: list[EvaluatedModel] = [BaseModel(ours, adapter.base)]
    if incumbent is not None and incumbent.adapter_digest and incumbent.manifest is not None:
        theirs = models.on_base(incumbent.base)
        served.append(AdapterModel(theirs, INCUMBENT, incumbent.adapter_digest, incumbent.manifest))
    return [*served, AdapterModel(ours, CANDIDATE, adapter.digest, adapter.manifest)]
