"""The section and the plot of `make bench-rows`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SHARES = ("coverage", "grounded", "overlap")
SECONDS = (
    "intake_seconds",
    "intake_cpu_seconds",
    "seconds",
    "cpu_seconds",
    "incremental_seconds",
    "incremental_cpu_seconds",
)
NAMES = {"base": "base", "old": "rows of before", "new": "rows of today"}
SIDES = {**NAMES, "base": "nothing (base)"}
LOSSES, FABRICATIONS = (
    ("loss", "loss_file", "loss_spaced"),
    ("fabrication", "fabrication_list", "fabrication_line", "facts_used"),
)


def render(figures: Mapping[str, Any]) -> str:
    """The section of the page, with the parts that were measured."""
    corpora = {name: figures[name] for name in ("generated", "real") if name in figures}
    parts = [_table(corpora)] if corpora else []
    parts += [_skipped(name, corpus) for name, corpus in corpora.items()]
    if "real" in corpora:
        parts.append(_not_read(corpora["real"]))
    if "learning" in figures:
        parts.append(_learning(figures["learning"]))
    return "\n\n".join([*parts, "![What the rows teach, and the time that builds take](benchmarks/rows.svg)"])


def _table(corpora: Mapping[str, Mapping[str, Any]]) -> str:
    names = list(corpora)
    lines = [f"| | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for share in SHARES:
        lines.append(_line(f"{share}, by the manifest", [f"{corpora[name][share]:.3f}" for name in names]))
        lines.append(_line(f"{share}, recomputed", [f"{corpora[name]['recomputed'][share]:.3f}" for name in names]))
    for unit in ("documents", "characters", "near_duplicates", "rows", "train_tokens", "held_out_rows", "event_bytes"):
        lines.append(_line(unit.replace("_", " "), [f"{corpora[name][unit]:,}" for name in names]))
    for unit in SECONDS:
        lines.append(_line(unit.replace("_", " "), [_number(corpora[name], unit, ",.1f") for name in names]))
    for unit in ("intake_peak_rss_mb", "peak_rss_mb", "incremental_peak_rss_mb"):
        lines.append(_line(unit.replace("_", " "), [_number(corpora[name], unit, ",") for name in names]))
    return "\n".join(lines)


def _number(figures: Mapping[str, Any], unit: str, form: str) -> str:
    """A figure, or a dash if an earlier run, which did not measure it, gave the figures."""
    return format(figures[unit], form) if unit in figures else "-"


def _line(name: str, cells: Sequence[str]) -> str:
    return f"| {name} | {' | '.join(cells)} |"


def _skipped(name: str, corpus: Mapping[str, Any]) -> str:
    counts = [
        f"{reason} ({count['documents']:,} documents, {count['rows']:,} rows, {count['characters']:,} characters)"
        for reason, count in sorted(corpus["skipped"].items())
    ]
    return f"Left out of the {name} documents: {', '.join(counts) if counts else 'nothing'}."


def _not_read(corpus: Mapping[str, Any]) -> str:
    counts = [
        f"{reason} {count} (such as {', '.join(corpus['not_read_examples'][reason][:1])})"
        for reason, count in sorted(corpus["not_read"].items())
    ]
    return f"Of {corpus['files']:,} real files, these gave no document: {', '.join(counts) if counts else 'none'}."


def _learning(figures: Mapping[str, Any]) -> str:
    lines = [
        "| trained on | rows of the train documents | coverage | trained rows | tokens | of these in answers |",
        "|---|---|---|---|---|---|",
    ]
    for side in ("old", "new"):
        row = figures[side]
        lines.append(
            f"| {NAMES[side]} | {row['all_rows']:,} | {row['coverage']:.3f} | {row['rows']:,} | {row['tokens']:,} | {row['answer_tokens']:,} |"
        )
    lines += [
        "",
        "| trained on | held-out loss (nats per token) | text as in the file | single spaces |",
        "|---|---|---|---|",
    ]
    for side, name in SIDES.items():
        lines.append(f"| {name} | {' | '.join(interval(figures[side][unit]) for unit in LOSSES)} |")
    lines += [
        "",
        "| trained on | fabrication | facts in a list | facts in a line | facts used | values in answers | words per answer |",
        "|---|---|---|---|---|---|---|",
    ]
    for side, name in SIDES.items():
        row = figures[side]
        measured = " | ".join(interval(row[unit]) for unit in FABRICATIONS)
        lines.append(f"| {name} | {measured} | {row['values']:,} | {row['answer_words']} |")
    return "\n".join([*lines, "", _differences(figures)])


def _differences(figures: Mapping[str, Any]) -> str:
    less = ", ".join(
        f"{unit.replace('_', ' ')} {interval(figures['new_minus_old'][unit])}" for unit in (*LOSSES, *FABRICATIONS)
    )
    return (
        f"{figures['parts']} parts of {figures['held_out_documents']} held-out documents ({figures['shared_parts']} more share 13 words with a train document and were left "
        f"out); {figures['questions']} prompts with facts. {figures['train_documents']:,} train documents. Rows of today less rows of before: {less}."
    )


def interval(value: Mapping[str, float]) -> str:
    """A value with its interval."""
    return f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"


def plot(figures: Mapping[str, Any], path: Path) -> None:
    """Held-out loss and fabrication by side, and seconds by corpus, as far as they were measured."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(9, 3))
    learning = figures.get("learning", {})
    for axis, unit, title in (
        (axes[0], "loss", "held-out loss, nats/token"),
        (axes[1], "fabrication", "fabricated values, share"),
    ):
        sides = [name for name in NAMES if name in learning]
        measured = [learning[name][unit] for name in sides]
        heights = [value["value"] for value in measured]
        errors = [
            [max(0.0, value["value"] - value["low"]) for value in measured],
            [max(0.0, value["high"] - value["value"]) for value in measured],
        ]
        axis.bar([NAMES[name] for name in sides], heights, yerr=errors, color="#35607c", ecolor="#222222", capsize=3)
        axis.set_title(title, fontsize=9)
    corpora = [name for name in ("generated", "real") if name in figures]
    for place, unit in enumerate(("intake_seconds", "seconds", "incremental_seconds")):
        spots = [number + place * 0.25 for number in range(len(corpora))]
        axes[2].bar(spots, [figures[name][unit] for name in corpora], width=0.25, label=unit.replace("_", " "))
    axes[2].set_xticks([number + 0.25 for number in range(len(corpora))], corpora)
    axes[2].set_title("seconds by corpus", fontsize=9)
    if corpora:
        axes[2].legend(fontsize=7, frameon=False)
    for axis in axes:
        axis.tick_params(labelsize=7)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
