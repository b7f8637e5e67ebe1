"""Forecasts a run from its rows and its base's configuration: `python -m services.training.planning.forecaster REQUEST.json`.

The request names a folder with the base's config.json and tokenizer, the rows of each stage, the installation's recipes, and the device.
The answer has what was read of the base and measured of the device, too. A request that brings it along needs no torch, whose import takes
longer than the rest.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from pydantic import TypeAdapter

from services.training.adapters.child_process import answer_parent
from services.training.bases.attention import register_attention, separate_rows
from services.training.bases.capabilities import read_capabilities
from services.training.domain import Capabilities
from services.training.methods.engine import uses_engine
from services.training.methods.learned_loss import learned_loss
from services.training.methods.loading import adapter_options
from services.training.planning import forecast
from services.training.planning.base_shape import check_recipe, read_shape
from services.training.planning.devices import Device, complete_device, training_teraflops
from services.training.planning.forecast import Load, Shape
from services.training.planning.loads import Lengths, count, read_lengths
from services.training.rates import fit_base, fit_device, list_steps
from services.training.recipe import Recipe, load_recipe
from tailor.blocked_imports import hide_packages
from tailor.errors import InvalidArgument
from tailor.hardware import computes_in_bf16

IN_F32 = ", f32 in place of bf16"
FEW, MORE = 1, 3  # layers of the two models whose difference is the time of a layer
TIMED_SECONDS, TIMED_STEPS = 2.0, 3  # both models' steps are timed for so long, and at least so often


@dataclass(frozen=True)
class StageForecast:
    """The figures of one stage. `required` is the memory in bytes that the device must have."""

    recipe: Recipe
    load: Load
    memory: int
    required: int
    seconds: float


@dataclass(frozen=True)
class ForecastContext:
    """A base and a device, on which forecasts stand. `in_f32` means that the device computes in f32 for lack of bf16.

    `teraflops` is the speed that training reaches, in TFLOP/s.
    """

    shape: Shape
    capabilities: Capabilities
    device: Device
    in_f32: bool
    teraflops: float

    @classmethod
    def read(cls, base: Path, device: Device) -> Self:
        """Read the base's configuration and measure the device, whose name says so if it computes in f32.

        Loads torch. Raises InvalidArgument (BASE_UNREADABLE).
        """
        shape, device = read_shape(base), complete_device(device)
        in_f32 = not device.gpu and not computes_in_bf16()
        speed = _find_speed(base, shape, device)
        return cls(
            shape,
            read_capabilities(base),
            replace(device, name=device.name + IN_F32) if in_f32 else device,
            in_f32,
            speed,
        )


def _find_speed(base: Path, shape: Shape, device: Device) -> float:
    """TFLOP/s that training reaches: on this machine's processor by steps of the base, elsewhere by products."""
    recipe = fit_device(load_recipe("lora").fit_processor(bf16=computes_in_bf16()), gpu=device.gpu)
    fits = forecast.weight_bytes(recipe, shape) < device.memory_bytes
    if fits and device.here and not device.gpu and not device.teraflops:
        # Some architectures cannot be built with a few of their layers.
        with suppress(ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
            return measure_teraflops(base, shape, recipe)
    return training_teraflops(device)


@dataclass(frozen=True)
class Forecaster(ForecastContext):
    """Forecasts stages on one base and device."""

    # Whether vLLM writes the rollouts of a recipe here, and the largest rank that inference serves.
    uses_engine: Callable[[Recipe], bool]
    max_rank: int

    def forecast(self, recipe: Recipe, lengths: Lengths) -> StageForecast:
        """Forecast a stage with the first way to compute its steps that fits. Raises InvalidArgument (INVALID_RECIPE, NO_ROWS)."""
        recipe = fit_base(recipe.fit_processor(bf16=not self.in_f32), self.shape.width, self.shape.family)
        check_recipe(recipe, self.shape, self.capabilities, self.max_rank)
        trained = round(recipe.limit.epochs * lengths.tokens)
        for way in list_steps(recipe, gpu=self.device.gpu, trained_tokens=trained):
            stage = self._forecast(way, lengths)
            if self.fits(stage):
                break
        return stage

    def _forecast(self, recipe: Recipe, lengths: Lengths) -> StageForecast:
        load = count(lengths, recipe)
        gpu, engine = self.device.gpu, self.uses_engine(recipe)
        return StageForecast(
            recipe,
            load,
            forecast.peak_memory(recipe, self.shape, load, gpu=gpu, engine=engine),
            forecast.required_memory(recipe, self.shape, load, gpu=gpu, engine=engine),
            forecast.working_seconds(recipe, self.shape, load, self.teraflops, engine=engine) / self.device.count,
        )

    def fits(self, stage: StageForecast) -> bool:
        """True if the device has enough memory, or its memory is not known."""
        return not self.device.memory_bytes or stage.required <= self.device.memory_bytes

    def choose_nearest(self, stage: StageForecast, lengths: Lengths, recipes: Mapping[str, Recipe]) -> str:
        """The name of the installation's recipe that is nearest to the stage's and fits; empty if none does."""
        return forecast.choose_nearest(stage.recipe, self._find_fitting(stage, lengths, recipes))

    def _find_fitting(
        self, stage: StageForecast, lengths: Lengths, recipes: Mapping[str, Recipe]
    ) -> Iterator[tuple[str, Recipe]]:
        for name, recipe in recipes.items():
            if recipe.method != stage.recipe.method:
                continue
            try:
                other = self.forecast(recipe, lengths)
            except InvalidArgument:
                continue
            if self.fits(other):
                yield name, other.recipe

    def explain_misfit(self, stage: StageForecast) -> str:
        """Why the stage does not fit, in gigabytes."""
        recipe, shape, load = stage.recipe, self.shape, stage.load
        base, trained = forecast.weight_bytes(recipe, shape), forecast.trained_bytes(recipe, shape)
        step = forecast.step_bytes(recipe, shape, load, gpu=self.device.gpu, engine=self.uses_engine(recipe))
        return (
            f"It needs {_gigabytes(stage.required)}, but there are {_gigabytes(self.device.memory_bytes)} ({self.device.name}): "
            f"{_gigabytes(base)} for the base, {_gigabytes(trained)} for the trained weights with gradients and moments, "
            f"and {_gigabytes(step)} for a step of {load.tokens:,} tokens. A step has at least the longest row: "
            "batch.max_length leaves longer rows out, and rows.max_row_tokens of the specialist splits them."
            + self._describe_engine(stage)
        )

    def _describe_engine(self, stage: StageForecast) -> str:
        if not self.uses_engine(stage.recipe):
            return ""
        size = forecast.engine_bytes(stage.recipe, self.shape, stage.load, gpu=self.device.gpu)
        return f" The engine that writes its answers takes {_gigabytes(size)}; with TAILOR_ROLLOUT_ENGINE=generate there is none."


def plan(request: Mapping[str, Any]) -> dict[str, Any]:
    """Forecast all stages: sums, the largest memory, and the first misfit. Raises InvalidArgument if the run can never work."""
    from services.training.bases.files import load_tokenizer

    base, known = Path(request["base"]), request.get("known")
    ground = (
        TypeAdapter(ForecastContext).validate_python(known)
        if known
        else ForecastContext.read(base, Device(**request["device"]))
    )
    shape, device, tokenizer = ground.shape, ground.device, load_tokenizer(base)
    forecaster = Forecaster(
        **vars(ground),
        uses_engine=lambda recipe: request["rollout_engine"] == "auto" and uses_engine(recipe, base, gpu=device.gpu),
        max_rank=request["max_rank"],
    )
    recipes = {name: Recipe.model_validate(settings) for name, settings in request["recipes"].items()}
    stages, refusal, nearest = [], "", ""
    for stage_request in request["stages"]:
        recipe = Recipe.model_validate(stage_request["recipe"])
        lengths = read_lengths([Path(path) for path in stage_request["rows"]], recipe.method, tokenizer, shape.context)
        stage = forecaster.forecast(recipe, lengths)
        stages.append(stage)
        if not refusal and not forecaster.fits(stage):
            refusal = forecaster.explain_misfit(stage)
            nearest = forecaster.choose_nearest(stage, lengths, recipes)
    return {
        "plan": _sum_stages(stages, device) | {"refusal": refusal, "nearest_recipe": nearest},
        "stages": [
            {
                "tokens": stage.load.trained,
                "unlimited": stage.load.unlimited,
                "seconds": stage.seconds,
                "settings": {
                    "learning_rate": stage.recipe.optimizer.learning_rate,
                    "tokens": stage.recipe.batch.tokens,
                    "accumulation": stage.recipe.batch.accumulation,
                    "gradient_checkpointing": stage.recipe.batch.gradient_checkpointing == "on",
                },
            }
            for stage in stages
        ],
        "working_seconds": sum(stage.seconds for stage in stages),
        "other_seconds": len(stages) * forecast.other_seconds(shape),
        "known": asdict(ground),
    }


def _sum_stages(stages: Sequence[StageForecast], device: Device) -> dict[str, Any]:
    """Fields of a `Plan`."""
    return {
        "rows": max((stage.load.rows for stage in stages), default=0),
        "rows_skipped": sum(stage.load.skipped for stage in stages),
        "tokens": sum(stage.load.trained for stage in stages),
        "steps": sum(stage.load.steps for stage in stages),
        "memory_bytes": max((stage.memory for stage in stages), default=0),
        "device": device.name,
        "devices": device.count,
        "device_memory_bytes": device.memory_bytes,
        "gpu": device.gpu,
    }


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB"


def main(path: Path) -> int:
    """Answer the request in the file. Returns the exit code."""
    request = json.loads(path.read_text(encoding="utf-8"))
    # Transformers would load these; a forecast builds no weights.
    hide_packages("sklearn", "scipy", "bitsandbytes", *(["torch"] if request.get("known") else []))
    return answer_parent(lambda: plan(request))


def measure_teraflops(base: Path, shape: Shape, recipe: Recipe) -> float:
    """TFLOP/s, counted as by `forecast.operations`, that steps of a LoRA recipe reach on this machine's processor.

    Steps of the first layers are timed, with random weights, because norms, attention and the small products of an adapter take most of a
    step if matrix products are quick or a base is narrow. Others may use the machine meanwhile.

    Reads the base's config.json only, and takes the memory of its embeddings, twice, and of four layers. Raises what transformers and torch
    raise for a base that has no such layers.
    """
    tokens = min(recipe.batch.tokens, shape.context)
    models = [_build(base, recipe, layers) for layers in (FEW, min(MORE, shape.layers))]
    started, rounds = time.perf_counter(), list[list[float]]()
    # In turn, so that both have the quiet moments of a busy machine.
    while len(rounds) <= TIMED_STEPS or time.perf_counter() - started < TIMED_SECONDS:
        rounds.append([_time_step(model, tokens) for model in models])
    # The first steps also prepare what the others reuse.
    few, more = (statistics.median(times) for times in zip(*rounds[1:], strict=True))
    seconds: float = few + max(0.0, more - few) / (MORE - FEW) * (shape.layers - FEW)
    load = Load(rows=1, steps=1, tokens=tokens, learned=tokens // 2, trained=tokens)
    return forecast.operations(recipe, shape, load) / seconds / 1e12


def _time_step(model: Any, tokens: int) -> float:
    """Seconds of a forward and a backward pass; half of the tokens are learned."""
    import torch

    places = torch.arange(tokens)[None]
    ids = places.remainder(model.config.get_text_config().vocab_size)
    labels = torch.where(places < tokens // 2, -100, ids)
    began = time.perf_counter()
    learned_loss(model, {"input_ids": ids, "labels": labels, "position_ids": places}, None).backward()
    taken = time.perf_counter() - began
    model.zero_grad()
    return taken


def _build(base: Path, recipe: Recipe, layers: int) -> Any:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(base, local_files_only=True, trust_remote_code=False)
    text = config.get_text_config()
    text.num_hidden_layers = layers
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:layers]
    register_attention()
    model = AutoModelForCausalLM.from_config(
        config,
        dtype=torch.bfloat16 if recipe.precision == "bf16" else torch.float32,
        trust_remote_code=False,
        attn_implementation=read_capabilities(base).attention,
    )
    return get_peft_model(separate_rows(model), LoraConfig(task_type="CAUSAL_LM", **adapter_options(recipe, base)))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
