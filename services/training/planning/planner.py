"""Satisfies `plans.Planner`: brings what a forecast needs from the store, and has it made in a process of its own."""

import hashlib
import json
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from services.training.adapters import child_process as apart
from services.training.adapters.datasets import find_split
from services.training.adapters.stored_files import bring_files
from services.training.bases.files import KEPT
from services.training.domain import Base, Run, RunState, Stage
from services.training.planning.devices import Device
from services.training.plans import Plan, PlanRequest
from services.training.recipe import load_stages, recipe_names
from tailor.errors import FailedPrecondition, InvalidArgument, Reason
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref

MODULE = "services.training.planning.forecaster"
PLAN_SECONDS = 300.0
LOOKED_BACK = 200  # runs in which one like this is looked for
TAKEN = 5  # of those, the newest


class Past(Protocol):
    """Runs that were."""

    def page(self, specialist: str, size: int, before: tuple[datetime, str] | None) -> list[Run]:
        """Runs, newest first; of all specialists where the name is empty."""
        ...


@dataclass(frozen=True)
class StoredPlanner:
    """Plans runs. `device` is what the settings say of it: without a name it is looked for on this machine."""

    store: ObjectStore
    past: Past
    recipes: Path
    device: Device
    scratch: Path
    now: Callable[[], datetime]

    def plan(self, request: PlanRequest) -> Plan:
        """The forecast. Some seconds; as `plans.Planner` says."""
        self.scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.scratch, prefix="plan-") as folder:
            asked = Path(folder) / "request.json"
            asked.write_text(json.dumps(self._request(request, Path(folder))), encoding="utf-8")
            found = apart.ask(MODULE, [str(asked)], PLAN_SECONDS, "recipe")
        working, measured = found["working_seconds"], self._measured_rate(request, found)
        if measured:
            working = found["tokens"] / measured
        return Plan(
            rows=found["rows"],
            tokens=found["tokens"],
            steps=found["steps"],
            memory_bytes=found["memory_bytes"],
            device_memory_bytes=found["device_memory_bytes"],
            device=found["device"],
            devices=found["devices"],
            seconds=round(found["other_seconds"] + working, 1),
            seconds_from="measured" if measured else "estimated",
            fits=not found["refusal"],
            create_time=self.now(),
            refusal=found["refusal"],
            nearest_recipe=found["nearest_recipe"],
        )

    def _request(self, request: PlanRequest, folder: Path) -> dict[str, Any]:
        self._bring_base(request.base, folder / "base")
        stages = [
            {"recipe": json.loads(stage.recipe_json), "rows": str(self._bring_rows(stage.dataset, folder))}
            for stage in request.stages
            if stage.dataset is not None
        ]
        return {
            "base": str(folder / "base"),
            "stages": stages,
            "recipes": self._known_recipes(),
            "device": asdict(self.device),
        }

    def _bring_base(self, base: Base, folder: Path) -> None:
        """The configuration and tokenizer, never the weights."""
        manifest = json.loads(self.store.get(base.manifest))
        bring_files(self.store, manifest["files"], folder, lambda name: name in KEPT)

    def _bring_rows(self, dataset: Ref, folder: Path) -> Path:
        split = find_split(self.store.get(dataset), "train")
        if split is None:
            raise FailedPrecondition(Reason.NO_TRAIN_ROWS, "The dataset has no rows to train on.")
        path = folder / f"{hashlib.sha256(split.key.encode()).hexdigest()}.parquet"
        self.store.get_file(split, path)
        return path

    def _known_recipes(self) -> dict[str, Any]:
        known = {}
        for name in recipe_names(self.recipes):
            try:
                stages = load_stages(name, self.recipes)
            except InvalidArgument:
                # A recipe that is wrong fits nobody.
                continue
            if len(stages) == 1:
                known[name] = stages[0].recipe.model_dump(mode="json")
        return known

    def _measured_rate(self, request: PlanRequest, found: Mapping[str, Any]) -> float:
        """Tokens a second of working time in the newest runs like this one; 0 where there is none."""
        like = [
            run
            for run in self.past.page("", LOOKED_BACK, None)
            if run.state is RunState.SUCCEEDED
            and run.base_digest == request.base.digest
            and run.plan is not None
            and run.plan.device == found["device"]
            and _signature(run.stages) == _signature(request.stages)
        ]
        reports = [run.report for run in like if run.report is not None and run.report.tokens][:TAKEN]
        # Whatever it was, it trained for more than no time.
        rates = [
            report.tokens / max(report.seconds - found["other_seconds"], report.seconds / 10) for report in reports
        ]
        return statistics.median(rates) if rates else 0.0


def _signature(stages: Sequence[Stage]) -> list[tuple[str, str, str]]:
    """What two runs must share for the time of one to say something of the other's."""
    recipes = [json.loads(stage.recipe_json) for stage in stages]
    return [(recipe["method"], recipe["adapter"]["kind"], recipe["precision"]) for recipe in recipes]
