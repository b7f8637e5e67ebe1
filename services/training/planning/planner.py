"""Plans runs: downloads what a forecast needs, and has it made in a child process."""

import json
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from services.training.adapters.child_process import run_child
from services.training.adapters.inputs import download_split
from services.training.adapters.manifests import download_files
from services.training.bases.files import CAPABILITIES, KEPT
from services.training.domain import SFT, Base, Run, RunState, Stage
from services.training.planning.devices import Device
from services.training.plans import Plan, StageSettings
from services.training.recipe import load_stages, recipe_names
from tailor.datasets import TRAIN, DatasetManifest
from tailor.errors import FailedPrecondition, InvalidArgument, Reason
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref

MODULE = "services.training.planning.forecaster"
PLAN_SECONDS = 300.0
MEASURED_RUNS = 5  # the newest similar runs, whose speed is used


@dataclass(frozen=True)
class StoredPlanner:
    """Plans runs on stored bases and datasets.

    `recent_runs` returns runs, newest first, among which similar ones are searched. `device` is as the settings describe it.
    """

    store: ObjectStore
    recent_runs: Callable[[], Sequence[Run]]
    recipes: Path
    device: Device
    scratch: Path
    now: Callable[[], datetime]
    rollout_engine: Literal["auto", "generate"] = "auto"
    # The largest rank that inference serves.
    max_rank: int = 32
    # What the child process found of a base and the device, by the base's digest.
    _known: dict[str, Any] = field(default_factory=dict, init=False, compare=False, repr=False)

    def plan(self, base: Base, stages: Sequence[Stage]) -> Plan:
        """Forecast the stages that have a dataset, in a child process. If they do not fit, the plan names the nearest recipe that does.

        Loads no weights. Takes seconds: never call it within a transaction. Raises Unavailable, and FailedPrecondition or
        InvalidArgument if the dataset or the base is unusable.
        """
        self.scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.scratch, prefix="plan-") as folder:
            path = Path(folder) / "request.json"
            path.write_text(json.dumps(self._to_json(base, stages, Path(folder))), encoding="utf-8")
            forecast = run_child(MODULE, [str(path)], PLAN_SECONDS, "recipe", reads_rows=True)
        self._known[base.digest] = forecast["known"]
        measured = self._measured_rate(base, stages, forecast)
        working = forecast["plan"]["tokens"] / measured if measured else forecast["working_seconds"]
        per_token, of_documents = self._share_seconds(stages, forecast, measured)
        return Plan(
            **forecast["plan"],
            seconds=round(forecast["other_seconds"] + working, 1),
            seconds_from="measured" if measured else "estimated",
            fits=not forecast["plan"]["refusal"],
            create_time=self.now(),
            fixed_seconds=forecast["other_seconds"] + working - of_documents,
            train_token_seconds=per_token,
            settings=tuple(
                StageSettings(stage.recipe, **figures["settings"])
                for stage, figures in zip(_planned(stages), forecast["stages"], strict=True)
            ),
        )

    def _share_seconds(
        self, stages: Sequence[Stage], forecast: Mapping[str, Any], measured: float
    ) -> tuple[float, float]:
        """Seconds of each token of the documents' train split over all passes, and the forecast seconds of the stages that read it."""
        per_token = seconds = 0.0
        for stage, figures in zip(_planned(stages), forecast["stages"], strict=True):
            if stage.learns_from != SFT or stage.dataset is None:
                continue
            of_stage = figures["tokens"] / measured if measured else figures["seconds"]
            manifest = DatasetManifest.parse(self.store.get(stage.dataset))
            tokens = manifest.split(TRAIN).tokens
            per_token += of_stage / figures["tokens"] * figures["unlimited"] / tokens if tokens else 0.0
            seconds += of_stage
        return per_token, seconds

    def _to_json(self, base: Base, stages: Sequence[Stage], folder: Path) -> dict[str, Any]:
        self._download_base(base, folder / "base")
        return {
            "base": str(folder / "base"),
            "stages": [
                {"recipe": json.loads(stage.recipe_json), "rows": self._download_rows(stage.dataset, folder)}
                for stage in stages
                if stage.dataset is not None
            ],
            "recipes": self._load_recipes(),
            "device": asdict(self.device),
            "rollout_engine": self.rollout_engine,
            "max_rank": self.max_rank,
            "known": self._known.get(base.digest),
        }

    def _download_base(self, base: Base, folder: Path) -> None:
        """Download the configuration and the tokenizer, not the weights."""
        manifest = json.loads(self.store.get(base.manifest))
        download_files(self.store, manifest["files"], folder, lambda name: name in KEPT or name == CAPABILITIES)

    def _download_rows(self, dataset: Ref, folder: Path) -> list[str]:
        manifest = DatasetManifest.parse(self.store.get(dataset))
        target = folder / dataset.sha256
        # Two stages can train on the same dataset.
        paths = sorted(target.iterdir()) if target.exists() else download_split(self.store, manifest, TRAIN, target)
        if not paths:
            raise FailedPrecondition(Reason.NO_TRAIN_ROWS, "The dataset has no rows to train on.")
        return [str(path) for path in paths]

    def _load_recipes(self) -> dict[str, Any]:
        recipes = {}
        for name in recipe_names(self.recipes):
            try:
                stages = load_stages(name, self.recipes)
            except InvalidArgument:
                # An invalid recipe cannot be recommended.
                continue
            if len(stages) == 1:
                recipes[name] = stages[0].recipe.model_dump(mode="json")
        return recipes

    def _measured_rate(self, base: Base, stages: Sequence[Stage], forecast: Mapping[str, Any]) -> float:
        """Median tokens per second of working time in the newest similar runs; 0 if there are none."""
        similar = [
            run
            for run in self.recent_runs()
            if run.state is RunState.SUCCEEDED
            and run.base_digest == base.digest
            and run.plan is not None
            and run.plan.device == forecast["plan"]["device"]
            and _signature(run.worked_stages) == _signature(stages)
        ]
        reports = [run.report for run in similar if run.report is not None and run.report.tokens][:MEASURED_RUNS]
        # At least a tenth of a run's time counts as work, even if the forecast of the rest was too high.
        rates = [
            report.tokens / max(report.seconds - forecast["other_seconds"], report.seconds / 10) for report in reports
        ]
        return statistics.median(rates) if rates else 0.0


def _planned(stages: Sequence[Stage]) -> list[Stage]:
    return [stage for stage in stages if stage.dataset is not None]


def _signature(stages: Sequence[Stage]) -> list[tuple[str, str, str]]:
    """What two runs must have in common for their speeds to be comparable."""
    recipes = [json.loads(stage.recipe_json) for stage in stages]
    return [(recipe["method"], recipe["adapter"]["kind"], recipe["precision"]) for recipe in recipes]
