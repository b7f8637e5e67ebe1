"""The rules of the forecast, on a base small enough to check by hand."""

from dataclasses import replace
from typing import Any

import pytest

from services.training.planning import forecast
from services.training.planning.forecast import Load, Shape
from services.training.recipe import Recipe, load_recipe

SHAPE = Shape(
    parameters=1_000_000,
    linear=800_000,
    largest=200_000,
    layers=2,
    width=100,
    inner=200,
    key_width=50,
    vocabulary=2_000,
    context=512,
    targets=(("q_proj", 100, 100), ("down_proj", 200, 100)) * 2,
)
LOAD = Load(rows=10, steps=5, tokens=64, learned=16, trained=320)


def recipe(kind: str = "lora", precision: str = "bf16", method: str = "sft", **changes: Any) -> Recipe:
    settings = load_recipe("lora").model_dump()
    adapter = settings["adapter"] | {"kind": kind, "r": 4} | changes.pop("adapter", {})
    rewards = [{"kind": "length", "words": 10}] if method in ("rloo", "grpo") else []
    made = settings | {"precision": precision, "method": method, "adapter": adapter, "rewards": rewards} | changes
    return Recipe.model_validate(made)


def test_adapter_has_a_row_and_a_column_of_each_module_per_rank() -> None:
    assert forecast.adapter_parameters(recipe(), SHAPE) == 4 * 2 * (200 + 300)
    only = recipe(adapter={"target_modules": ("q_proj",)})
    assert forecast.adapter_parameters(only, SHAPE) == 4 * 2 * 200
    assert forecast.adapter_parameters(recipe(adapter={"use_dora": True}), SHAPE) == 4 * 2 * 500 + 2 * 200
    assert forecast.adapter_parameters(recipe("none", "f32"), SHAPE) == 0


def test_weights_are_in_the_precision_of_the_recipe() -> None:
    assert forecast.weight_bytes(recipe(), SHAPE) == 2_000_000
    assert forecast.weight_bytes(recipe(precision="f32"), SHAPE) == 4_000_000
    assert forecast.weight_bytes(recipe("none", "mixed"), SHAPE) == 4_000_000
    assert forecast.weight_bytes(recipe("qlora"), SHAPE) == 0.516 * 800_000 + 4 * 200_000


def test_training_all_weights_needs_gradients_and_two_moments_each() -> None:
    assert forecast.trained_bytes(recipe("none", "f32"), SHAPE) == 12 * 1_000_000 + 8 * 200_000
    assert forecast.trained_bytes(recipe(precision="f32"), SHAPE) == 16 * 4_000
    assert forecast.trained_bytes(recipe(), SHAPE) < forecast.trained_bytes(recipe("none", "mixed"), SHAPE) / 100


def test_logits_are_kept_for_learned_tokens_only() -> None:
    more = replace(LOAD, learned=32)
    added = forecast.activation_bytes(recipe(), SHAPE, more) - forecast.activation_bytes(recipe(), SHAPE, LOAD)
    assert added == 16 * 2_000 * forecast.SCORE_BYTES


def test_memory_grows_with_the_tokens_per_step_and_not_with_the_number_of_steps() -> None:
    known = forecast.peak_memory(recipe(), SHAPE, LOAD, gpu=False)
    assert forecast.peak_memory(recipe(), SHAPE, replace(LOAD, steps=500, trained=32_000), gpu=False) == known
    assert forecast.peak_memory(recipe(), SHAPE, replace(LOAD, tokens=128), gpu=False) > known
    assert forecast.peak_memory(recipe(adapter={"dropout": 0.1}), SHAPE, LOAD, gpu=False) > known


def test_a_step_takes_more_of_a_cpus_heap_and_dpo_keeps_the_references_logits() -> None:
    on_gpu, on_cpu = (forecast.step_bytes(recipe(), SHAPE, LOAD, gpu=gpu) for gpu in (True, False))
    assert on_gpu == forecast.activation_bytes(recipe(), SHAPE, LOAD)
    assert on_cpu == pytest.approx(1.45 * on_gpu)
    more = forecast.activation_bytes(recipe(method="dpo"), SHAPE, LOAD) - on_gpu
    assert more == 16 * 2_000 * (forecast.SCORE_BYTES_DPO - forecast.SCORE_BYTES)


def test_device_needs_more_memory_than_a_step() -> None:
    on_gpu = forecast.peak_memory(recipe(), SHAPE, LOAD, gpu=True)
    assert forecast.required_memory(recipe(), SHAPE, LOAD, gpu=True) > 1.1 * on_gpu
    # On a CPU the reload check loads the base a second time, which takes more memory than a small step.
    two = 2 * (forecast.CPU_FIXED + 2_000_000)
    assert forecast.required_memory(recipe(), SHAPE, LOAD, gpu=False) >= two


def test_generated_answers_are_in_the_cache() -> None:
    load = replace(LOAD, cached=10_000)
    kept = 10_000 * 2 * 2 * 50 * 2
    assert forecast.writing_bytes(recipe(method="rloo"), SHAPE, load) > kept
    assert forecast.writing_bytes(recipe(), SHAPE, load) == 0


def test_engine_that_writes_answers_has_its_own_base_and_cache_and_takes_less_time() -> None:
    load, chosen = replace(LOAD, cached=10_000, written=320), recipe(method="rloo")
    written = forecast.writing_bytes(chosen, SHAPE, load)
    expected = forecast.ENGINE_FIXED + 2 * 2 * 1_000_000 + written
    assert forecast.engine_bytes(chosen, SHAPE, load, gpu=False) == expected
    alone = forecast.peak_memory(chosen, SHAPE, replace(load, cached=0), gpu=False)
    shared = forecast.peak_memory(chosen, SHAPE, load, gpu=False, engine=True)
    assert alone < shared <= alone + expected
    assert forecast.required_memory(chosen, SHAPE, load, gpu=False, engine=True) >= shared
    slow, fast = (forecast.working_seconds(chosen, SHAPE, load, 0.1, engine=engine) for engine in (False, True))
    assert fast < slow
    # On a GPU the base is there once, and two processes have a context of the driver.
    assert forecast.engine_bytes(chosen, SHAPE, load, gpu=True) == forecast.GPU_FIXED + 2 * 1_000_000 + written
    used = forecast.peak_memory(chosen, SHAPE, load, gpu=True, engine=True)
    required = forecast.required_memory(chosen, SHAPE, load, gpu=True, engine=True)
    assert required == round(used * forecast.FRAGMENTATION + 2 * forecast.GPU_RESERVE)
    in_f32 = forecast.engine_bytes(recipe(precision="f32", method="rloo"), SHAPE, load, gpu=False)
    assert in_f32 > expected


def test_reward_model_is_a_second_base() -> None:
    ruled = recipe(method="rloo")
    judged = ruled.model_copy(update={"rewards": (ruled.rewards[0].model_copy(update={"kind": "model"}),)})
    added = forecast.peak_memory(judged, SHAPE, LOAD, gpu=True) - forecast.peak_memory(ruled, SHAPE, LOAD, gpu=True)
    assert added == 2_000_000


def test_lora_needs_no_gradients_of_the_base_weights() -> None:
    full = forecast.operations(recipe("none", "f32"), SHAPE, replace(LOAD, learned=0))
    small = forecast.operations(recipe(), SHAPE, replace(LOAD, learned=0))
    assert full == 6 * 800_000 * 320
    assert small == (4 * 800_000 + 6 * 4_000) * 320
    assert forecast.operations(recipe(method="dpo"), SHAPE, replace(LOAD, learned=0)) == small + 2 * 800_000 * 320


def test_faster_device_takes_less_time_and_a_generated_token_more() -> None:
    slow = forecast.working_seconds(recipe(), SHAPE, LOAD, 0.1)
    assert forecast.working_seconds(recipe(), SHAPE, LOAD, 0.2) == pytest.approx(slow / 2)
    written = replace(LOAD, written=320)
    assert forecast.working_seconds(recipe(), SHAPE, written, 0.1) > 3 * slow


def test_nearest_recipe_has_the_same_kind_of_adapter_then_the_most_tokens() -> None:
    small, large = recipe(batch={"tokens": 64, "max_length": 64}), recipe(batch={"tokens": 512, "max_length": 64})
    quantised = recipe("qlora", batch={"tokens": 1024, "max_length": 64})
    fitting = [("q", quantised), ("small", small), ("large", large)]
    assert forecast.choose_nearest(recipe(), fitting) == "large"
    assert forecast.choose_nearest(recipe("none", "f32"), fitting) == "large"
    assert forecast.choose_nearest(recipe("qlora"), fitting) == "q"
    assert forecast.choose_nearest(recipe(), []) == ""
