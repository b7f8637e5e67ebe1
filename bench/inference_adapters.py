"""Adapters of rank 16 for the inference bench, constructed instead of trained, so that nothing is downloaded and every answer is known."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
RANK = 16
NUDGE = 0.002
# The written token's share of the last hidden state, in lengths of that state; large enough that the rest does not matter.
PUSH = 30.0
PLACES = 4


def make_adapters(base: Path, root: Path, count: int) -> list[Path]:
    """Make adapters that change every linear layer a little, so that answers remain sentences."""
    import torch
    from safetensors.torch import save_file

    folders = []
    for number in range(count):
        draw = torch.Generator().manual_seed(number)
        folder = root / f"adapter-{number:02d}"
        folder.mkdir(parents=True)
        _write_config(folder)
        save_file(_nudges(base, draw), folder / "adapter_model.safetensors")
        folders.append(folder)
    return folders


def make_speakers(base: Path, root: Path, prompts: Sequence[str], count: int) -> dict[Path, str]:
    """Make adapters that repeat one distinct token each, for every prompt. Returns their folders with the repeated text.

    Each pushes the last hidden state towards its token, by the last layer's output projection, and nudges all other layers.
    """
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(base)
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    attended, length = _last_layer(model, tokenizer, prompts)
    last = f"base_model.model.model.layers.{model.config.num_hidden_layers - 1}.self_attn.o_proj"
    embeddings = model.get_input_embeddings().weight.detach()
    speakers = {}
    for number, token in enumerate(_words(model, tokenizer, count)):
        folder = root / f"speaker-{number:02d}"
        folder.mkdir(parents=True)
        _write_config(folder)
        weights = _nudges(base, torch.Generator().manual_seed(1000 + number))
        reads = attended / attended.norm() ** 2
        # alpha / rank is 2: see _write_config.
        pushes = embeddings[token] / embeddings[token].norm() * length * PUSH / 2
        # Inference refuses huge numbers, in each matrix and in their product: both get the same norm.
        balance = (pushes.norm() / reads.norm()).sqrt()
        weights[f"{last}.lora_A.weight"][0] = (reads * balance).bfloat16()
        weights[f"{last}.lora_B.weight"][:, 0] = (pushes / balance).bfloat16()
        save_file(weights, folder / "adapter_model.safetensors")
        speakers[folder] = str(tokenizer.decode([token]))
    return speakers


def _nudges(base: Path, draw: Any) -> dict[str, Any]:
    import torch

    weights = {}
    for module, (width, inner) in _linear_shapes(base).items():
        name = f"base_model.model.{module}"
        weights[f"{name}.lora_A.weight"] = (torch.randn(RANK, inner, generator=draw) / inner**0.5).bfloat16()
        weights[f"{name}.lora_B.weight"] = (torch.randn(width, RANK, generator=draw) * NUDGE).bfloat16()
    return weights


def _linear_shapes(base: Path) -> Mapping[str, Sequence[int]]:
    from safetensors import safe_open

    with safe_open(base / "model.safetensors", "pt") as file:
        names = [name for name in file.keys() if name.split(".")[-2] in TARGETS]  # noqa: SIM118 - not a dict
        return {name.removesuffix(".weight"): file.get_slice(name).get_shape() for name in names}


def _write_config(folder: Path) -> None:
    from peft import LoraConfig

    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=TARGETS, task_type="CAUSAL_LM", inference_mode=True)
    config.target_modules = sorted(TARGETS)
    config.save_pretrained(str(folder))


def _last_layer(model: Any, tokenizer: Any, prompts: Sequence[str]) -> tuple[Any, float]:
    """The mean input of the last layer's output projection at the start of an answer, and the length of the layer's output."""
    import torch

    read, given = [], []
    layer = model.model.layers[-1]
    hooks = [
        layer.self_attn.o_proj.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0][0, -PLACES:])),
        layer.register_forward_hook(lambda _, __, output: given.append(_hidden(output)[0, -PLACES:])),
    ]
    with torch.inference_mode():
        for prompt in prompts:
            model(torch.tensor([encode(tokenizer, prompt)]))
    for hook in hooks:
        hook.remove()
    return torch.cat(read).mean(0), float(torch.cat(given).norm(dim=-1).mean())


def _hidden(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output


def _words(model: Any, tokenizer: Any, count: int) -> list[int]:
    """Tokens of letters only that are the likeliest if the last hidden state is their own embedding."""
    embeddings = model.get_input_embeddings().weight.detach()
    words = []
    for token, number in sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1]):
        if token.isascii() and token.isalpha() and len(token) >= 2:
            state = embeddings[number] * model.model.norm.weight.detach()
            if int((embeddings @ state).argmax()) == number:
                words.append(number)
        if len(words) == count:
            return words
    raise SystemExit(f"the base has {len(words)} tokens to tell adapters by, and {count} are needed")


def encode(tokenizer: Any, prompt: str) -> list[int]:
    """A prompt by the base's chat template."""
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
