"""The section of `make bench-gate`."""

from collections.abc import Mapping
from typing import Any

from bench.report import keep, read_figures

NAME = "gate"
LIMITS = {
    "aa_refused": "at most 0.05",
    "aa_passed": "at most 0.05",
    "degraded_passed": "at most 0.05",
    "degraded_first_passed": "",
    "better_passed": "at least 0.95",
}
WORDS = {
    "aa_refused": "same recipe, another seed serves: a guard refuses",
    "aa_passed": "same recipe, another seed serves: passes as better",
    "degraded_passed": "degraded, a good adapter serves: passes, of the worst kind",
    "degraded_first_passed": "degraded, nothing serves: passes, of the worst kind",
    "better_passed": "the demo's adapter against its base: passes",
}


def keep_figures(figures: Mapping[str, Any]) -> str:
    """Keep the figures of a part of the bench together with those of the other part. Returns the section."""
    whole = {**read_figures(NAME), **figures}
    section = render(whole)
    keep(NAME, whole, section)
    return section


def render(figures: Mapping[str, Any]) -> str:
    """The parts that were measured."""
    parts = [render_trials(figures)] if "trials" in figures else []
    parts += [render_demos(figures)] if "demos" in figures else []
    return "\n\n".join(parts)


def render_demos(figures: Mapping[str, Any]) -> str:
    """How many fresh demos were promoted, and how long they took."""
    seconds = sorted(demo["seconds"] for demo in figures["demos"])
    decisions = ", ".join(demo["decision"] for demo in figures["demos"])
    return (
        f"`demo_promoted`: {figures['demo_promoted']} of {figures['demo_times']} demos in fresh directories ({decisions}), "
        f"in {seconds[0]:.0f} to {seconds[-1]:.0f} s each without installation."
    )


def render_trials(figures: Mapping[str, Any]) -> str:
    """The figures with their limits, and the verdicts of each kind."""
    trainings = ", ".join(f"{kind.replace('_', ' ')} {count}" for kind, count in figures["trainings"].items())
    lines = [
        "| figure | share | limit |",
        "|---|---:|---|",
        *(f"| `{name}`: {WORDS[name]} | {figures[name]:.3f} | {limit} |" for name, limit in LIMITS.items()),
        "",
        f"{figures['trials']} trials of each kind, each on half of the documents of {figures['held_out_rows']} held-out rows; "
        f"trainings: {trainings}. The primary metric alone says that a candidate of the same recipe is certainly not better "
        f"in {figures['aa_not_better']:.3f} of the trials.",
        "",
        "| candidate | passed | refused | undecided | refused by |",
        "|---|---:|---:|---:|---|",
        *(_row(kind, figures["trials"], counts) for kind, counts in figures["kinds"].items()),
    ]
    return "\n".join(lines)


def _row(kind: str, trials: int, counts: Mapping[str, Any]) -> str:
    verdicts = counts["verdicts"]
    shares = " | ".join(f"{verdicts.get(name, 0) / trials:.3f}" for name in ("passed", "refused", "undecided"))
    reasons = ", ".join(f"{name} {count}" for name, count in sorted(counts["refused_by"].items()))
    return f"| {kind.replace('_first', ', nothing serves').replace('_', ' ')} | {shares} | {reasons} |"
