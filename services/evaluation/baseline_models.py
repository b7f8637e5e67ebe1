"""The models that a candidate is compared with, besides the adapter that serves."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace

from services.evaluation.adapters.sql import SqlArtifacts
from services.evaluation.baselines.external import ExternalLimits, ExternalModel, UnknownModel
from services.evaluation.baselines.few_shot import FewShotModel
from services.evaluation.baselines.gepa_optimizer import MAX_REFLECTION_TOKENS, PromptTask, Reflect
from services.evaluation.baselines.optimized_prompt import (
    OptimizedPromptModel,
    PromptBudget,
)
from services.evaluation.baselines.prompt_store import PromptStore
from services.evaluation.baselines.train_data import TrainData
from services.evaluation.domain import BASE, Adapter, HeldOutSet, Serving, SpecialistTerms
from services.evaluation.ports import (
    ChatEndpoint,
    EvaluatedModel,
    Models,
    OpenTrainRows,
)
from services.evaluation.served_models import list_served_models
from tailor.errors import Reason, Unavailable
from tailor.values import SamplingDefaults


@dataclass(frozen=True)
class PromptSearch:
    """How instructions are optimised. `reflection` names an external model that proposes them; the base if it is empty."""

    store: PromptStore
    budget: PromptBudget = field(default_factory=PromptBudget)
    reflection: str = ""


@dataclass(frozen=True)
class BaselineModels:
    """The served models, and after the base those that the specialist's policy names: few_shot, prompt, external ones."""

    models: Models
    artifacts: SqlArtifacts
    open_rows: OpenTrainRows
    search: PromptSearch
    external: Mapping[str, ChatEndpoint] = field(default_factory=dict)
    limits: ExternalLimits = field(default_factory=ExternalLimits)
    erased: Container[str] = frozenset()

    def list_models(
        self, adapter: Adapter, terms: SpecialistTerms, incumbent: Serving | None, held_out: HeldOutSet
    ) -> Sequence[EvaluatedModel]:
        """A `ports.ListModels`."""
        base, *others = list_served_models(self.models, adapter, incumbent)
        on_base = replace(self, models=self.models.on_base(adapter.base))
        return [base, *on_base._baselines(adapter, terms, held_out), *others]

    def _baselines(self, adapter: Adapter, terms: SpecialistTerms, held_out: HeldOutSet) -> list[EvaluatedModel]:
        policy, data = terms.evaluation, self._data(adapter, held_out)
        few_shot = FewShotModel(self.models, adapter.base, data, held_out.rows, policy.few_shot, policy.guidelines)
        prompt = [self._prompt(adapter, terms, data)] if policy.optimize_prompt else []
        return [few_shot, *prompt, *(self._external(name, policy.guidelines) for name in policy.external_models)]

    def _data(self, adapter: Adapter, held_out: HeldOutSet) -> TrainData:
        """The adapter's dataset. For pairs, also the nearest other one of earlier stages: its documents' rows are measured too."""
        digests = [adapter.dataset_digest]
        if held_out.has_pairs:
            earlier = (ancestor.dataset_digest for ancestor in self.artifacts.ancestors(adapter))
            digests += next(([other] for other in earlier if other not in digests), [])
        manifests = {found.digest: found.manifest for found in self.artifacts.datasets.all(digest=digests)}
        if adapter.dataset_digest not in manifests:
            raise Unavailable(Reason.UNKNOWN_DATASET, "The adapter's dataset has not been announced yet.")
        return TrainData(self.open_rows, manifests, self.erased)

    def _prompt(self, adapter: Adapter, terms: SpecialistTerms, data: TrainData) -> EvaluatedModel:
        search = self.search
        endpoint = self.external.get(search.reflection)
        return OptimizedPromptModel(
            models=self.models,
            base=adapter.base,
            data=data,
            seed=terms.evaluation.guidelines,
            task=PromptTask(self.models, terms.sampling, self._reflect(endpoint) if endpoint else None),
            reflection=endpoint.model if endpoint else BASE,
            store=search.store,
            budget=search.budget,
        )

    def _external(self, name: str, guidelines: str) -> EvaluatedModel:
        endpoint = self.external.get(name)
        return ExternalModel(name, endpoint, guidelines, self.limits) if endpoint else UnknownModel(name)

    def _reflect(self, endpoint: ChatEndpoint) -> Reflect:
        model = ExternalModel(self.search.reflection, endpoint, "", self.limits)
        sampling = SamplingDefaults(max_tokens=MAX_REFLECTION_TOKENS)
        return lambda prompt: model.ask((("user", prompt),), sampling).text
