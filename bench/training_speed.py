"""Our SFT against trl's defaults on the same rows: tokens per second in alternation, and whether both minimise the same loss.

Both sides get the same token ids with the same labels, so only the way of training differs. trl's side is its SFTTrainer with default settings: the
base as it loads it, eight padded rows per step, gradient checkpointing and bf16 autocast. A second pass gives both sides the same rows in each step,
in f32 and from the same adapter: there the losses of every step must agree.
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.training_house import House, context, recipe
from services.training.bases.files import load_tokenizer
from services.training.methods import loading, model, row_files, rows, sft
from services.training.methods.base import trainer_options
from services.training.rates import fit_base, fit_device
from services.training.recipe import Recipe
from tailor.chat import Encoded

ROWS_A_STEP = 8  # trl's default
STEPS = 4
ROUNDS = 5
LOSS_STEPS = 6


@dataclass
class Took:
    """One training loop: wall and CPU seconds, tokens without padding, and the loss of each step."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    tokens: int = 0
    losses: list[float] = field(default_factory=list)


def measure(house: House) -> dict[str, Any]:
    """The best round of each side, and the largest difference between the losses of a step."""
    tokenizer = load_tokenizer(house.base_folder)
    chosen = fit_device(recipe("lora"), gpu=False)
    every = rows.chat_encoder(tokenizer).encode_all(row_files.read(house.train, row_files.CHATS))
    encoded = sorted(every, key=lambda row: row.row_id)[: ROWS_A_STEP * STEPS]
    ours, theirs = [], []
    for _ in range(ROUNDS):
        ours.append(_ours(house, chosen, rows.pack(encoded, chosen.batch.tokens, chosen.seed)))
        theirs.append(_trl(house, tokenizer, chosen, encoded, STEPS))
    difference = _loss_difference(house, tokenizer, encoded)
    mine, other = min(ours, key=lambda took: took.seconds), min(theirs, key=lambda took: took.seconds)
    return {
        "tokens_per_second": round(mine.tokens / mine.seconds, 1),
        "trl_tokens_per_second": round(other.tokens / other.seconds, 1),
        "tokens_ratio": round((mine.tokens / mine.seconds) / (other.tokens / other.seconds), 2),
        "cpu_ratio": round((other.cpu_seconds / other.tokens) / (mine.cpu_seconds / mine.tokens), 2),
        "loss_difference": difference,
        "rows": len(encoded),
        "rounds": ROUNDS,
    }


def _loss_difference(house: House, tokenizer: Any, encoded: Sequence[Encoded]) -> float:
    exact = recipe("lora", precision="f32")
    groups = [list(encoded[at : at + ROWS_A_STEP]) for at in range(0, len(encoded), ROWS_A_STEP)]
    steps = [groups[number % len(groups)] for number in range(LOSS_STEPS)]
    mine = _ours(house, exact, steps)
    theirs = _trl(house, tokenizer, exact, [row for group in steps for row in group], LOSS_STEPS, same_start=True)
    return max(abs(first - second) for first, second in zip(mine.losses, theirs.losses, strict=True))


def _ours(house: House, chosen: Recipe, bins: Sequence[Sequence[Encoded]]) -> Took:
    with tempfile.TemporaryDirectory() as folder:
        stage = context(house.base_folder, house.train, chosen, Path(folder))
        trainer = sft.build_trainer(
            model.trainable_model(house.base_folder, chosen, None), stage, bins, steps=len(bins)
        )
        trainer.args.train_sampling_strategy = "sequential"  # bins in order, as trl's side takes its rows
        return _timed(trainer, sum(len(row.tokens) for packed in bins for row in packed))


def _trl(
    house: House,
    tokenizer: Any,
    chosen: Recipe,
    encoded: Sequence[Encoded],
    steps: int,
    *,
    same_start: bool = False,
) -> Took:
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    columns = rows.to_columns([[row] for row in encoded])
    del columns["seq_lengths"]  # of rows in a bin; trl pads
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {"output_dir": folder, "max_steps": steps, "logging_steps": 1, "report_to": "none"}
        options |= {"use_cpu": _on_cpu(), "save_strategy": "no", "disable_tqdm": True}
        chosen = fit_base(chosen, loading.read_width(house.base_folder), loading.read_family(house.base_folder))
        options |= {"learning_rate": chosen.optimizer.learning_rate}
        if same_start:
            # The same steps in the same order as ours, with the same optimiser, in f32, from the same adapter.
            options = trainer_options(chosen, steps, Path(folder), micro_batch=ROWS_A_STEP)
            options |= {"save_strategy": "no", "train_sampling_strategy": "sequential"}
            trained, adapter = model.trainable_model(house.base_folder, chosen, None), None
        else:
            trained = str(house.base_folder)
            adapter = LoraConfig(r=chosen.adapter.r, lora_alpha=chosen.adapter.alpha, target_modules="all-linear")
        trainer = SFTTrainer(
            model=trained,
            args=SFTConfig(**options),
            train_dataset=Dataset.from_dict(columns),
            processing_class=tokenizer,
            peft_config=adapter,
        )
        return _timed(trainer, sum(len(row.tokens) for row in encoded))


def _on_cpu() -> bool:
    import torch

    return not torch.cuda.is_available()


def _timed(trainer: Any, tokens: int) -> Took:
    from transformers import PrinterCallback, TrainerCallback

    took = Took(tokens=tokens)

    class Clock(TrainerCallback):  # type: ignore[misc]
        """Times only the loop."""

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            """Start the clocks."""
            took.seconds, took.cpu_seconds = -time.perf_counter(), -time.process_time()

        def on_train_end(self, *_: Any, **__: Any) -> None:
            """Stop the clocks."""
            took.seconds += time.perf_counter()
            took.cpu_seconds += time.process_time()

        def on_log(self, _args: Any, _state: Any, _control: Any, logs: dict[str, Any], **__: Any) -> None:
            """Record the step's loss."""
            if "loss" in logs:
                took.losses.append(float(logs["loss"]))

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Clock())
    trainer.train()
    return took
