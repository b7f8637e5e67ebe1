"""`python -m services.training.planning.forecaster REQUEST.json`: the forecast of a run, from its rows and its base's configuration.

The request names a folder with the base's config.json and tokenizer, each stage's rows, the recipes of the installation, and the device.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.training.adapters.child_process import answer
from services.training.planning import forecast
from services.training.planning.base_shape import check_recipe, read_shape
from services.training.planning.devices import Device, find
from services.training.planning.forecast import Load, Shape
from services.training.planning.loads import Lengths, count, read_lengths
from services.training.recipe import Recipe
from tailor.errors import InvalidArgument
from tailor.hardware import computes_in_bf16


@dataclass(frozen=True)
class StageForecast:
    """One stage's figures. `needed` is what the device must have."""

    recipe: Recipe
    load: Load
    memory: int
    needed: int
    seconds: float


@dataclass(frozen=True)
class Forecaster:
    """Forecasts stages on one base and device."""

    shape: Shape
    device: Device
    in_f32: bool

    def forecast(self, recipe: Recipe, lengths: Lengths) -> StageForecast:
        """A stage's figures. InvalidArgument (INVALID_RECIPE, NO_ROWS)."""
        if self.in_f32:
            recipe = recipe.model_copy(update={"precision": "f32"})
        check_recipe(recipe, self.shape)
        load, gpu = count(lengths, recipe), self.device.gpu
        return StageForecast(
            recipe,
            load,
            forecast.memory(recipe, self.shape, load, gpu=gpu),
            forecast.needed(recipe, self.shape, load, gpu=gpu),
            forecast.working_seconds(recipe, self.shape, load, self.device.teraflops, gpu=gpu) / self.device.count,
        )

    def fits(self, stage: StageForecast) -> bool:
        """True where the device has what the stage needs; also where its memory is not known."""
        return not self.device.memory_bytes or stage.needed <= self.device.memory_bytes

    def nearest(self, stage: StageForecast, lengths: Lengths, recipes: Mapping[str, Recipe]) -> str:
        """The recipe of the installation that is nearest to the stage's and fits; empty where none does."""
        return forecast.nearest(stage.recipe, self._fitting(stage, lengths, recipes))

    def _fitting(
        self, stage: StageForecast, lengths: Lengths, recipes: Mapping[str, Recipe]
    ) -> Iterator[tuple[str, Recipe]]:
        for name, recipe in recipes.items():
            if recipe.method != stage.recipe.method:
                continue
            try:
                fits = self.fits(self.forecast(recipe, lengths))
            except InvalidArgument:
                continue
            if fits:
                yield name, recipe

    def refusal(self, stage: StageForecast) -> str:
        """Why the stage does not fit, in numbers."""
        recipe, shape, load = stage.recipe, self.shape, stage.load
        base, trained = forecast.weight_bytes(recipe, shape), forecast.trained_bytes(recipe, shape)
        step = forecast.activation_bytes(recipe, shape, load)
        return (
            f"It needs {_gigabytes(stage.needed)}, and there are {_gigabytes(self.device.memory_bytes)} ({self.device.name}): "
            f"the base takes {_gigabytes(base)}, what is trained with its gradients and moments {_gigabytes(trained)}, "
            f"and a step of {load.tokens:,} tokens {_gigabytes(step)}."
        )


def plan(request: Mapping[str, Any]) -> dict[str, Any]:
    """The forecast over all stages: sums, the largest memory, and the first refusal. InvalidArgument where it can never work."""
    from services.training.methods.model import load_tokenizer

    named = Device(**request["device"])
    base = Path(request["base"])
    shape, tokenizer = read_shape(base), load_tokenizer(base)
    device = find(named)
    forecaster = Forecaster(shape, device, in_f32=not device.gpu and not computes_in_bf16())
    recipes = {name: Recipe.model_validate(settings) for name, settings in request["recipes"].items()}
    stages, refusal, nearest = [], "", ""
    for asked in request["stages"]:
        recipe = Recipe.model_validate(asked["recipe"])
        lengths = read_lengths(Path(asked["rows"]), recipe.method, tokenizer, shape.context)
        stage = forecaster.forecast(recipe, lengths)
        stages.append(stage)
        if not refusal and not forecaster.fits(stage):
            refusal, nearest = forecaster.refusal(stage), forecaster.nearest(stage, lengths, recipes)
    return _summed(stages, device) | {
        "other_seconds": len(stages) * forecast.other_seconds(shape),
        "refusal": refusal,
        "nearest_recipe": nearest,
    }


def _summed(stages: Sequence[StageForecast], device: Device) -> dict[str, Any]:
    return {
        "rows": max((stage.load.rows for stage in stages), default=0),
        "tokens": sum(stage.load.trained for stage in stages),
        "steps": sum(stage.load.steps for stage in stages),
        "memory_bytes": max((stage.memory for stage in stages), default=0),
        "working_seconds": sum(stage.seconds for stage in stages),
        "device": device.name,
        "devices": device.count,
        "device_memory_bytes": device.memory_bytes,
    }


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB"


if __name__ == "__main__":
    sys.exit(answer(lambda: plan(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))))
