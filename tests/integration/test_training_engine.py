"""The engine that writes rollouts computes what the training model computes, with the adapter of each step: vLLM on a small base."""

import importlib.util
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from services.training.methods.callers_first import PAUSE_SECONDS
from services.training.methods.engine import EngineProcess
from services.training.methods.engine_process import EngineOptions
from services.training.ports import RolloutAnswer
from tailor.compute_lock import ComputeLock
from tailor.hardware import computes_in_bf16
from tests.models import make_tiny_base, widen

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm is not installed; generate writes here"),
]

PROMPTS = [[5, 6, 7, 8], list(range(40, 90))]
ANSWERS = 3
# Query and value are parts of one layer of vLLM's model, whose key stays as it is; `down_proj` is a whole layer.
TARGETS = ["q_proj", "v_proj", "down_proj"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return widen(make_tiny_base(tmp_path_factory.mktemp("base"), ["what the engine reads"], vocabulary=400))


def options(base: Path, adapter: Path, precision: str = "f32") -> EngineOptions:
    return EngineOptions(str(base), str(adapter), 6, 80, 24, 4, TARGETS, 1.0, 1.0, (2,), precision, 2)


def adapted(base: Path, seed: int) -> PeftModel:
    """The base with a random adapter that changes its answers a lot."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    torch.manual_seed(seed)
    config = LoraConfig(r=4, lora_alpha=12, use_rslora=True, target_modules=TARGETS, init_lora_weights=False)
    return get_peft_model(model, config)


def likelihoods(model: PeftModel, prompt: list[int], tokens: list[int]) -> torch.Tensor:
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 : -1]
    return torch.log_softmax(logits, dim=-1).gather(1, torch.tensor(tokens)[:, None])[:, 0]


def largest_difference(model: PeftModel, prompts: list[list[int]], written: list[RolloutAnswer]) -> float:
    return max(
        float((likelihoods(model, prompt, list(answer.tokens)) - torch.tensor(answer.log_probabilities)).abs().max())
        for prompt, answer in zip(prompts, written, strict=True)
    )


def test_answers_are_drawn_from_the_adapter_of_their_step(base: Path, tmp_path: Path) -> None:
    models = [adapted(base, seed) for seed in (1, 2)]
    prompts = [prompt for prompt in PROMPTS for _ in range(ANSWERS)]
    lock = tmp_path / "lock"
    models[1].save_pretrained(tmp_path / "adapter")
    engine = EngineProcess.start(replace(options(base, tmp_path / "adapter"), compute_lock=str(lock)))
    try:
        engine.wait_until_ready()
        steps = []
        for number, model in enumerate(models):
            model.save_pretrained(tmp_path / "adapter")
            steps.append(engine.write(prompts, tmp_path / "adapter", seed=7 + number))
        models[0].save_pretrained(tmp_path / "adapter")
        with ComputeLock(lock).hold():
            begun = time.monotonic()
            again = engine.write(prompts, tmp_path / "adapter", seed=7)
            # It makes way for a caller, and writes the same.
            assert time.monotonic() - begun >= PAUSE_SECONDS
    finally:
        engine.close()
    assert [largest_difference(model, prompts, step) for model, step in zip(models, steps, strict=True)] == [
        pytest.approx(0.0, abs=1e-3)
    ] * 2
    # The adapters differ much more than that, so none of it is what another adapter or the base would have drawn.
    assert largest_difference(models[1], prompts, steps[0]) > 0.1
    with models[0].disable_adapter():
        assert largest_difference(models[0], prompts, steps[0]) > 0.1
    assert again == steps[0]


# With less than 5 rows another kernel may multiply. qwen2 has biases.
@pytest.mark.parametrize("kind", ["llama", pytest.param("qwen2", marks=pytest.mark.release)])
def test_engine_computes_in_bf16_what_transformers_computes(kind: str, tmp_path: Path) -> None:
    if not computes_in_bf16():
        pytest.skip("this processor has no bf16: runs compute in f32 here, as in the other tests")
    base = make_base(kind, tmp_path / "base")
    first, second = adapted(base, seed=1), adapted(base, seed=2)
    many = [prompt for prompt in PROMPTS for _ in range(ANSWERS)]
    first.save_pretrained(tmp_path / "adapter")
    engine = EngineProcess.start(options(base, tmp_path / "adapter", "bf16"))
    try:
        engine.wait_until_ready()
        for model, other in ((first, second), (second, first)):
            model.save_pretrained(tmp_path / "adapter")
            for prompts in (many, PROMPTS):
                written = engine.write(prompts, tmp_path / "adapter", seed=5)
                assert largest_difference(model, prompts, written) < 0.05
                assert largest_difference(other, prompts, written) > 0.3
    finally:
        engine.close()


# Biases of query, key and value; norms of each head, which are parts of a row; windows of attention, and another norm.
@pytest.mark.release
@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "gemma3_text"])
def test_engine_computes_what_transformers_computes_for_other_kinds_of_bases(kind: str, tmp_path: Path) -> None:
    base = make_base(kind, tmp_path / "base")
    model = adapted(base, seed=3)
    model.save_pretrained(tmp_path / "adapter")
    engine = EngineProcess.start(options(base, tmp_path / "adapter"))
    try:
        engine.wait_until_ready()
        written = engine.write(PROMPTS, tmp_path / "adapter", seed=5)
    finally:
        engine.close()
    assert largest_difference(model, PROMPTS, written) == pytest.approx(0.0, abs=1e-3)


def make_base(kind: str, folder: Path) -> Path:
    """A base of two layers with random weights, also those that are ones or zeros in a new model."""
    size = {"vocab_size": 400, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "head_dim": 64}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 256}
    window = {"sliding_window": 16} if kind == "gemma3_text" else {}
    config = AutoConfig.for_model(kind, **size, **heads, **window, eos_token_id=2, pad_token_id=0, bos_token_id=1)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if name.endswith(("norm.weight", "bias")):
                weights.add_(0.2 * torch.randn_like(weights))
    model.save_pretrained(folder)
    return folder
