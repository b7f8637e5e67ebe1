"""Builds the models of an evaluation with the adapters that they need."""

from collections.abc import Container

from services.evaluation.adapters.chat_endpoint import external_endpoints
from services.evaluation.adapters.gepa_optimizer import GepaOptimizer
from services.evaluation.adapters.prompt_store import ObjectPrompts
from services.evaluation.adapters.train_rows import StoredTrainRows
from services.evaluation.baselines.choose import BaselineModels, PromptSearch
from services.evaluation.ports import Artifacts, Models
from services.evaluation.served_models import ServedModels
from services.evaluation.settings import Settings
from tailor.storage.protocol import ObjectStore


def evaluated_models(
    settings: Settings, models: Models, artifacts: Artifacts, store: ObjectStore, erased: Container[str]
) -> BaselineModels:
    """The base, baselines, the incumbent and the candidate. `erased` holds the ids of erased documents."""
    return BaselineModels(
        served=ServedModels(models),
        models=models,
        artifacts=artifacts,
        rows=StoredTrainRows(store),
        search=PromptSearch(GepaOptimizer(), ObjectPrompts(store), settings.prompt_budget, settings.reflection_model),
        external=external_endpoints(settings),
        limits=settings.external_limits,
        erased=erased,
    )
