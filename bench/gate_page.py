"""The section of `make bench-gate`."""

from collections.abc import Mapping
from typing import Any

LIMITS = {
    "aa_refused": "at most 0.05",
    "aa_passed": "at most 0.05",
    "degraded_passed": "at most 0.05",
    "better_passed": "at least 0.95",
}
WORDS = {
    "aa_refused": "same recipe, another seed serves: a guard refuses",
    "aa_passed": "same recipe, another seed serves: passes as better",
    "degraded_passed": "degraded, a good adapter serves: passes",
    "better_passed": "the demo's adapter against its base: passes",
}


def render(figures: Mapping[str, Any]) -> str:
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
