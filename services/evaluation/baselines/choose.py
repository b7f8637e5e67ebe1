"""The models that a candidate is compared with, besides the adapter that serves."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from services.evaluation.baselines.external import ExternalLimits, ExternalModel, UnknownModel
from services.evaluation.baselines.few_shot import FewShotModel, TrainData
from services.evaluation.baselines.optimized_prompt import (
    MAX_REFLECTION_TOKENS,
    OptimizedPromptModel,
    PromptBudget,
    Reflect,
    ServedTask,
)
from services.evaluation.domain import BASE, Adapter, HeldOut, Serving, SpecialistTerms
from services.evaluation.ports import (
    Artifacts,
    ChatEndpoint,
    EvaluatedModel,
    Models,
    ModelSource,
    PromptOptimizer,
    PromptStore,
    TrainRows,
)
from tailor.errors import Reason, Unavailable
from tailor.words import Sampling


@dataclass(frozen=True)
class PromptSearch:
    """How instructions are optimised. `reflection` names an external model that proposes them; the base if it is empty."""

    optimizer: PromptOptimizer
    store: PromptStore
    budget: PromptBudget = field(default_factory=PromptBudget)
    reflection: str = ""


@dataclass(frozen=True)
class BaselineModels(ModelSource):
    """The models of `served`, and after the base those that the specialist's policy names: few_shot, prompt, external ones."""

    served: ModelSource
    models: Models
    artifacts: Artifacts
    rows: TrainRows
    search: PromptSearch
    external: Mapping[str, ChatEndpoint] = field(default_factory=dict)
    limits: ExternalLimits = field(default_factory=ExternalLimits)
    erased: Collection[str] = frozenset()

    def list_models(
        self, adapter: Adapter, terms: SpecialistTerms, incumbent: Serving | None, held_out: HeldOut
    ) -> Sequence[EvaluatedModel]:
        base, *others = self.served.list_models(adapter, terms, incumbent, held_out)
        return [base, *self._baselines(adapter, terms, held_out), *others]

    def _baselines(self, adapter: Adapter, terms: SpecialistTerms, held_out: HeldOut) -> list[EvaluatedModel]:
        policy, data = terms.policy, self._data(adapter)
        few_shot = FewShotModel(self.models, adapter.base, data, held_out.rows, policy.few_shot, policy.guidelines)
        prompt = [self._prompt(adapter, terms, data)] if policy.optimize_prompt else []
        return [few_shot, *prompt, *(self._external(name, policy.guidelines) for name in policy.external_models)]

    def _data(self, adapter: Adapter) -> TrainData:
        manifest = self.artifacts.dataset(adapter.dataset_digest)
        if manifest is None:
            raise Unavailable(Reason.UNKNOWN_DATASET, "The adapter's dataset has not been announced yet.")
        return TrainData(self.rows, adapter.dataset_digest, manifest, self.erased)

    def _prompt(self, adapter: Adapter, terms: SpecialistTerms, data: TrainData) -> EvaluatedModel:
        search = self.search
        endpoint = self.external.get(search.reflection)
        return OptimizedPromptModel(
            models=self.models,
            base=adapter.base,
            data=data,
            seed=terms.policy.guidelines,
            task=ServedTask(self.models, terms.sampling, _asking(endpoint) if endpoint else None),
            reflection=endpoint.model if endpoint else BASE,
            optimizer=search.optimizer,
            store=search.store,
            budget=search.budget,
        )

    def _external(self, name: str, guidelines: str) -> EvaluatedModel:
        endpoint = self.external.get(name)
        return ExternalModel(name, endpoint, guidelines, self.limits) if endpoint else UnknownModel(name)


def _asking(endpoint: ChatEndpoint) -> Reflect:
    sampling = Sampling(max_tokens=MAX_REFLECTION_TOKENS)
    return lambda prompt: endpoint.complete((("user", prompt),), sampling).text
