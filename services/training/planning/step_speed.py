"""How fast a base trains on this machine's processor: steps of its first layers are timed, with weights that are made up.

A share of a matrix product's speed says little about it: where products are quick or a base is narrow, norms, attention and
the small products of an adapter take most of a step.
"""

import statistics
import time
from pathlib import Path
from typing import Any

from services.training.methods.loading import adapter_options
from services.training.methods.packed_attention import SEGMENTED, learned_loss, register_attention
from services.training.planning import forecast
from services.training.planning.forecast import Load, Shape
from services.training.recipe import Recipe

FEW, MORE = 1, 3  # layers of the two models whose difference is the time of a layer
TIMED_SECONDS, TIMED_STEPS = 2.0, 3  # both models' steps are timed for so long, and at least so often


def measure_teraflops(base: Path, shape: Shape, recipe: Recipe) -> float:
    """TFLOP/s, counted as by `forecast.operations`, that steps of a LoRA recipe reach here: others may use the machine meanwhile.

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
        attn_implementation=SEGMENTED,
    )
    return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **adapter_options(recipe)))
