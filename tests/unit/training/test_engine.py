"""The engine that writes rollouts: when it is used, how its process is talked to, and how its answers are weighted."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from services.training.methods import engine
from services.training.methods.engine import EngineProcess, reason_against, save_adapter, weigh
from services.training.methods.engine_process import EngineOptions, cache_bytes
from services.training.methods.rollouts import step_seed
from services.training.recipe import Recipe, load_recipe
from tailor.errors import Unavailable

READY = 'print(\'{"ready": true, "peak_bytes": 5}\', flush=True)'
ECHO = f"""
import json, sys
{READY}
for line in sys.stdin:
    request = json.loads(line)
    tokens = [prompt[::-1] for prompt in request["prompts"]]
    likely = [[-request["seed"]] * len(row) for row in tokens]
    print(json.dumps({{"tokens": tokens, "log_probabilities": likely, "peak_bytes": 7}}), flush=True)
"""


def process(script: str) -> EngineProcess:
    return EngineProcess([sys.executable, "-c", script])


def recipe(**adapter: Any) -> Recipe:
    shipped = load_recipe("rloo")
    return shipped.model_copy(update={"adapter": shipped.adapter.model_copy(update=adapter)})


@pytest.mark.parametrize(
    "chosen", [recipe(kind="none"), recipe(kind="qlora"), recipe(use_dora=True)], ids=["all weights", "qlora", "dora"]
)
@pytest.mark.parametrize("gpu", [False, True])
def test_generate_writes_what_the_engine_cannot(chosen: Recipe, gpu: bool, tmp_path: Path) -> None:
    assert "LoRA only" in reason_against(chosen, tmp_path, gpu=gpu)


def test_base_without_attention_kernels_in_vllm_is_left_to_generate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    for width, expected in ((64, "head size"), (256, "")):
        LlamaConfig(hidden_size=width, num_attention_heads=4, num_key_value_heads=2).save_pretrained(tmp_path)
        assert expected in reason_against(recipe(), tmp_path, gpu=False)
        assert engine.uses_engine(recipe(), tmp_path, gpu=False) is not bool(expected)
        # On a GPU vLLM has other kernels, and refuses to start if none fits.
        assert engine.uses_engine(recipe(), tmp_path, gpu=True)
    assert not engine.uses_engine(load_recipe("dpo"), tmp_path, gpu=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert reason_against(recipe(), tmp_path, gpu=False) == "vLLM is not installed."


def test_cache_holds_all_answers_of_a_step_at_full_length(tmp_path: Path) -> None:
    LlamaConfig(
        hidden_size=128, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=3, head_dim=64
    ).save_pretrained(tmp_path)
    options = EngineOptions(str(tmp_path), "", 4, 100, 60, 8, ["q_proj"], 1.0, 1.0, (2,), "bf16", 1)
    # 100 tokens take 4 blocks of 32; a token has 64 values of 2 bytes for keys and values of 2 heads in 3 layers.
    assert cache_bytes(options) == (4 * 4 + 1) * 32 * (3 * 2 * 2 * 64 * 2)


def test_engine_answers_in_order_and_ends_when_it_is_closed(tmp_path: Path) -> None:
    answers = process(ECHO)
    answers.wait_until_ready()
    written = answers.write([[1, 2], [3]], tmp_path, 5)
    assert [(answer.tokens, answer.log_probabilities) for answer in written] == [([2, 1], [-5, -5]), ([3], [-5])]
    answers.close()
    answers.close()
    assert answers.peak_bytes == 7
    with pytest.raises(Unavailable) as failed:
        answers.write([[1]], tmp_path, 5)
    assert failed.value.reason == "ENGINE_FAILED"


@pytest.mark.parametrize(
    ("script", "cause"),
    [
        ("raise SystemExit(3)", "it ended with status 3"),
        ("print('{\"ready\"', end='', flush=True)", "it ended with status 0"),
        ("import os; os.kill(os.getpid(), 4)", "it was ended by SIGILL"),
        ('print(\'{"error": "RuntimeError: no primitive"}\', flush=True)', "RuntimeError: no primitive"),
        ("import time; time.sleep(60)", "it has not answered for 2 s"),
    ],
    ids=["ends", "ends within a line", "is killed", "reports an error", "hangs"],
)
def test_failed_engine_is_retryable_and_says_why(script: str, cause: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "START_SECONDS", 2.0 if "2 s" in cause else 60.0)
    monkeypatch.setattr(engine, "STOP_SECONDS", 0.1)
    answers = process(script)
    with pytest.raises(Unavailable, match=f"failed: {cause}") as failed:
        answers.wait_until_ready()
    answers.close()
    assert (failed.value.reason, failed.value.retryable) == ("ENGINE_FAILED", True)


def test_answer_counts_as_much_as_it_is_likelier_for_the_training_model_up_to_a_bound() -> None:
    ours, engines = torch.tensor([-3.0, -3.0, -3.0, 0.0]), torch.tensor([-3.0, -3.5, -9.0, -7.0])
    mask = torch.tensor([[1, 1], [1, 0], [1, 1], [0, 0]])
    weights = weigh(ours, engines, mask)
    assert weights.tolist() == pytest.approx([1.0, 1.6487, engine.MAX_WEIGHT, 1.0], abs=1e-4)


def test_no_two_answers_of_a_run_are_drawn_with_one_seed() -> None:
    chosen = recipe()
    count = chosen.rollout.prompts * chosen.rollout.answers
    seeds = [step_seed(chosen, step) + number for step in range(50) for number in range(count)]
    assert len(set(seeds)) == len(seeds)
    assert step_seed(chosen.model_copy(update={"seed": 2**32 - 1}), 10**6) < 2**63


def test_each_step_gets_the_weights_of_its_time(tmp_path: Path) -> None:
    config = LlamaConfig(vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    policy = get_peft_model(LlamaForCausalLM(config), LoraConfig(r=2, target_modules=["q_proj"]))
    policy.add_adapter("ref", policy.peft_config["default"])
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_B"
    optimizer = torch.optim.AdamW([weights for weights in policy.parameters() if weights.requires_grad], lr=0.1)
    for _ in range(2):
        save_adapter(policy, tmp_path)
        saved = load_file(tmp_path / "adapter_model.safetensors")
        assert set(saved) == {f"{name}.weight", f"{name.replace('lora_B', 'lora_A')}.weight"}
        assert torch.equal(saved[f"{name}.weight"], policy.get_parameter(f"{name}.default.weight"))
        policy(input_ids=torch.tensor([[1, 2, 3]]), labels=torch.tensor([[1, 2, 3]])).loss.backward()
        optimizer.step()
        assert not torch.equal(saved[f"{name}.weight"], policy.get_parameter(f"{name}.default.weight"))
    assert (tmp_path / "adapter_config.json").exists()
