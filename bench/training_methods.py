"""Full fine-tuning, LoRA and QLoRA compared: what each gains on held-out rows, and what it costs.

Each is the real worker in its own process, on the same rows, tokens and steps, at the best of the learning rates that were tried. The gain is the
decrease of the held-out loss from that of the base. Task scores are those of evaluation, on greedy answers to the first held-out rows.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.training_house import House, Row, Used, fetch_weights, recipe, run_worker
from services.evaluation import metrics
from services.evaluation.domain import AnsweredRow, HeldOutRow
from services.evaluation.metrics.context import MetricContext
from services.training.bases.files import load_tokenizer
from services.training.methods import held_out, loading, model
from services.training.recipe import Recipe
from tailor.chat import Encoded, encode
from tailor.values import MetricDefinition

SCORES = ("rougeL", "bleu", "terms")
RECIPES = {"full": "full", "LoRA": "lora", "QLoRA": "qlora"}
# The best rates by held-out loss on this bench's rows; each was tried once. Full: 5e-5 3.240, 1e-4 2.996, 2e-4 2.834, 4e-4 2.796, 8e-4 2.893. LoRA: 1e-3 3.061,
# 2e-3 2.917, 4e-3 2.838, 8e-3 2.925. QLoRA: 5e-4 3.329, 1e-3 3.153, 2e-3 2.998, 4e-3 2.899.
RATES = {"full": 4e-4, "LoRA": 4e-3, "QLoRA": 4e-3}
TOKENS = 36_000
ANSWERED = 12
NEW_TOKENS = 96
REPETITION_PENALTY = 1.05


def measure(house: House) -> list[dict[str, Any]]:
    """A row for the base and one per method."""
    tokenizer = load_tokenizer(house.base_folder)
    encoded = [_encoded(row, tokenizer) for row in house.held_out]
    table = [{"method": "base", **_scores(loading.load_base(house.base_folder, _f32()), tokenizer, house, encoded)}]
    for name, recipe_name in RECIPES.items():
        chosen = recipe(
            recipe_name,
            batch={"tokens": 512, "max_length": 512, "accumulation": 1},
            limit={"epochs": 4.0, "max_steps": 0, "max_tokens": TOKENS},
            optimizer={"learning_rate": RATES[name]},
            checkpoint_every_steps=1000,
        )
        used = run_worker(house, recipe_name, chosen)
        trained = model.load_saved(house.base_folder, fetch_weights(house, used), chosen, "policy")
        table.append(
            {"method": name, "learning_rate": RATES[name], **_took(used), **_scores(trained, tokenizer, house, encoded)}
        )
    return table


def ratios(table: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """LoRA's and QLoRA's share of full fine-tuning's gain, and of its CPU seconds."""
    of = {row["method"]: row for row in table}
    gains = {name: of["base"]["held_out_loss"] - of[name]["held_out_loss"] for name in RECIPES}
    return {
        "lora_gain_ratio": round(gains["LoRA"] / gains["full"], 3),
        "qlora_gain_ratio": round(gains["QLoRA"] / gains["full"], 3),
        "lora_cpu_ratio": round(of["LoRA"]["cpu_seconds"] / of["full"]["cpu_seconds"], 3),
        "lora_memory_ratio": round(of["LoRA"]["memory_bytes"] / of["full"]["memory_bytes"], 3),
        "lora_parameters_ratio": round(of["LoRA"]["trained_parameters"] / of["full"]["trained_parameters"], 4),
    }


def _f32() -> Recipe:
    return recipe("lora", precision="f32")


def _encoded(row: Row, tokenizer: Any) -> Encoded:
    return encode(row.row_id, [*row.prompt, {"role": "assistant", "content": row.answer}], tokenizer)


def _took(used: Used) -> dict[str, Any]:
    return {
        "trained_parameters": _parameters(used),
        "seconds": round(used.seconds, 1),
        "cpu_seconds": round(used.cpu_seconds, 1),
        "memory_bytes": used.memory_bytes,
        "tokens": int(used.trained.get("tokens", 0)),
        "steps": int(used.trained["steps"]),
    }


def _parameters(used: Used) -> int:
    from safetensors import safe_open

    total = 0
    for file in sorted((used.folder / "weights").glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            total += sum(tensors.get_tensor(name).numel() for name in tensors.keys())  # noqa: SIM118 - not a dictionary
    return total


def _scores(asked: Any, tokenizer: Any, house: House, encoded: Sequence[Encoded]) -> dict[str, Any]:
    loss = held_out.loss(asked, encoded)
    rows = house.held_out[:ANSWERED]
    answers = _answers(asked, tokenizer, rows)
    return {"held_out_loss": round(loss, 4), "scores": score_answers(rows, answers, house.house_terms)}


def score_answers(rows: Sequence[Row], answers: Sequence[str], terms: Sequence[str]) -> dict[str, float]:
    """Evaluation's metrics of the answers."""
    answered = [
        AnsweredRow(HeldOutRow(row.row_id, "section", (), (), row.answer), answer, None)
        for row, answer in zip(rows, answers, strict=True)
    ]
    context = MetricContext(house_terms=terms)
    return {name: round(metrics.measure(MetricDefinition(name, name), answered, context).value(), 4) for name in SCORES}


def _answers(asked: Any, tokenizer: Any, rows: Sequence[Row]) -> list[str]:
    """Greedy answers, all in one batch."""
    import torch

    prompts = tokenizer.apply_chat_template(
        [row.prompt for row in rows],
        add_generation_prompt=True,
        padding=True,
        return_tensors="pt",
        return_dict=True,
        tokenizer_kwargs={"padding_side": "left"},
    )
    asked.set_attn_implementation("sdpa")
    with torch.no_grad():
        tokens = asked.generate(
            **prompts, max_new_tokens=NEW_TOKENS, do_sample=False, repetition_penalty=REPETITION_PENALTY
        )
    return [
        str(text)
        for text in tokenizer.batch_decode(tokens[:, prompts["input_ids"].shape[1] :], skip_special_tokens=True)
    ]


def plot(table: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Held-out loss against CPU seconds, and memory, by method."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    trained = [row for row in table if row["method"] != "base"]
    names = [row["method"] for row in trained]
    base = table[0]["held_out_loss"]
    figure, axes = pyplot.subplots(1, 3, figsize=(9, 3))
    for axis, title, values in (
        (axes[0], "fall of the held-out loss, nats/token", [base - row["held_out_loss"] for row in trained]),
        (axes[1], "CPU seconds", [row["cpu_seconds"] for row in trained]),
        (axes[2], "peak memory, GB", [row["memory_bytes"] / 1e9 for row in trained]),
    ):
        axis.bar(names, values, color="#35607c")
        axis.set_title(title, fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
