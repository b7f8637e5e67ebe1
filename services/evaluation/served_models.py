"""The models of an evaluation that inference answers for: the base, the adapter that serves, and the candidate."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.evaluation.domain import (
    BASE,
    CANDIDATE,
    INCUMBENT,
    Adapter,
    Answer,
    HeldOutRow,
    HeldOutSet,
    Score,
    Serving,
    SpecialistTerms,
)
from services.evaluation.ports import EvaluatedModel, Models, ModelSource
from tailor.storage.ref import Ref
from tailor.values import SamplingDefaults


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


@dataclass(frozen=True)
class ServedModels(ModelSource):
    """Base, incumbent and candidate."""

    models: Models

    def list_models(
        self, adapter: Adapter, terms: SpecialistTerms, incumbent: Serving | None, held_out: HeldOutSet
    ) -> Sequence[EvaluatedModel]:
        candidate = AdapterModel(self.models, CANDIDATE, adapter.digest, adapter.manifest)
        served: list[EvaluatedModel] = []
        if incumbent is not None and incumbent.adapter_digest and incumbent.manifest is not None:
            served.append(AdapterModel(self.models, INCUMBENT, incumbent.adapter_digest, incumbent.manifest))
        return [BaseModel(self.models, adapter.base), *served, candidate]
