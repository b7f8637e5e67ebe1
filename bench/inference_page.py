"""The inference bench's section of docs/benchmarks.md, of those parts that were measured, and its plot."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

SIDES = {
    "generate": ("transformers' `generate`, one by one", "base"),
    "ours": ("ours", "base"),
    "vLLM's server": ("vLLM's own server", "base"),
    "PEFT, mixed": ("PEFT's `adapter_names`", "16 adapters"),
    "ours, mixed": ("ours", "16 adapters"),
    "vLLM's server, mixed": ("vLLM's own server", "16 adapters"),
}
LOADS = {"load": "load", "load_with_rollouts": "with rollouts"}
SHARES = ("p50", "p95", "p99")
BLUE, GREY = "#35607c", "#b8c4cc"


def render(figures: Mapping[str, Any]) -> str:
    """The section."""
    parts = []
    if "tokens_per_second" in figures:
        parts.append(_speed(figures))
    if "added_p50_ms" in figures:
        parts.append(_layer(figures))
    if any(name in figures for name in LOADS):
        parts.append(_loads(figures))
    if "kill" in figures:
        parts.append(_kill(figures["kill"]))
    return "\n\n".join(
        [*parts, "![Tokens per second by side, and time to the first token under load](benchmarks/inference.svg)"]
    )


def _speed(figures: Mapping[str, Any]) -> str:
    lines = ["| side | model | threads | tokens/s | median | tokens per CPU second |", "|---|---|---|---|---|---|"]
    for side, (name, model) in SIDES.items():
        numbers = [
            figures[key][side]
            for key in ("threads", "tokens_per_second", "median_tokens_per_second", "tokens_per_cpu_second")
        ]
        lines.append(f"| {name} | {model} | {' | '.join(map(str, numbers))} |")
    return "\n".join(
        [
            *lines,
            "",
            f"On {figures['cores']} cores, the best of {figures['rounds']} rounds. Ours over the others: {figures['ratio_to_generate']} times `generate`, "
            f"{figures['ratio_to_peft']} times PEFT, {figures['ratio_to_vllm_server']} times vLLM's server with the base and "
            f"{figures['mixed_ratio_to_vllm_server']} times with 16 adapters.",
        ]
    )


def _layer(figures: Mapping[str, Any]) -> str:
    rates = figures["layer_tokens_per_second"]
    return (
        f"Our layer adds {figures['added_p50_ms']} ms to a call of 1 to 8 tokens, by the medians of {figures['calls']} calls of one caller each way. "
        f"Sixteen callers get {rates['with']} tokens/s through it, against {rates['without']} of the engine asked directly: {figures['throughput_ratio']}."
    )


def _loads(figures: Mapping[str, Any]) -> str:
    measured = {title: figures[name] for name, title in LOADS.items() if name in figures}
    lines = [
        "| 32 callers | base | requests | errors | wrong adapter | first token, ms: p50, p95, p99 | each further token, ms: p50, p95, p99 |",
        "|---|---|---|---|---|---|---|",
    ]
    for title, of in measured.items():
        first, further = (
            ", ".join(f"{of[share][what]:g}" for share in SHARES) for what in ("first_token_ms", "per_token_ms")
        )
        lines.append(
            f"| {title} | {of['base']} | {of['requests']} | {of['errors']} | {of['wrong_adapter']} | {first} | {further} |"
        )
    rolled = figures.get("load_with_rollouts")
    if rolled:
        lines += [
            "",
            f"{rolled['changes']} promotions and rollbacks, each served within {rolled['change_ms']['max']:g} ms "
            f"(half of them within {rolled['change_ms']['p50']:g} ms); {rolled['generations']} generations answered.",
        ]
    return "\n".join(lines)


def _kill(of: Mapping[str, Any]) -> str:
    return (
        f"`kill -9` of one of two replicas ({of['base']}): {of['requests']} requests of 32 callers, {of['answers_after_the_kill']} of them answered after it, "
        f"{of['errors']} errors, {of['wrong_adapter']} answers of a wrong adapter, the longest call {of['longest_seconds']} s. {of['processes_left']} of its "
        f"processes were left. Started again, under load, it was ready after {of['restart_seconds']} s."
    )


def plot(figures: Mapping[str, Any], path: Path) -> None:
    """Tokens per second by side, and milliseconds to the first token under load, as far as they were measured."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    matplotlib.rcParams |= {"svg.hashsalt": "tailor", "svg.fonttype": "none"}
    figure, (speed, wait) = pyplot.subplots(1, 2, figsize=(9, 3))
    rates = figures.get("tokens_per_second", {})
    shown = [side for side in SIDES if side in rates]
    speed.barh(
        shown, [rates[side] for side in shown], color=[BLUE if side.startswith("ours") else GREY for side in shown]
    )
    speed.invert_yaxis()
    speed.set_title("tokens/s, 16 callers", fontsize=9)
    for offset, (name, title) in enumerate(LOADS.items()):
        if name in figures:
            places = [place + 0.38 * offset for place in range(len(SHARES))]
            heights = [figures[name][share]["first_token_ms"] for share in SHARES]
            wait.bar(places, heights, width=0.36, label=title, color=(BLUE, GREY)[offset])
    wait.set_xticks([place + 0.19 for place in range(len(SHARES))], SHARES)
    wait.set_title("ms to the first token, 32 callers", fontsize=9)
    if wait.patches:
        wait.legend(frameon=False, fontsize=8)
    for axis in (speed, wait):
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
