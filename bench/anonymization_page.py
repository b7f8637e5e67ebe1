"""The figures of the bench of anonymisation as Markdown, and their section in docs/benchmarks.md."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
SECTION = "anonymization"
# What the figures are to reach; a set that does not is named with what it misses.
LEAST_F2, LEAST_OWN_F2, LEAST_SMALL_RECALL, MOST_ALARMS, LEAST_REPLICA_RATIO = 0.90, 0.97, 0.80, 3.0, 1.5
OTHERS, SMALL, FORMS = "others:", "small letters", "with a form"


def render(report: dict[str, Any]) -> str:
    """The tables as Markdown."""
    rows = [
        "| set | side | texts | precision | recall | F2 | whole mentions | people safe |",
        "|---|---|---:|---|---|---|---|---|",
    ]
    for name, sides in report["sets"].items():
        for side, values in sides.items():
            rows.append(f"| {name} | {side} | {values['texts']} | {' | '.join(_cells(values))} |")
    rows += ["", "| type | recall, ours | recall, plain |", "|---|---|---|"]
    ours_by_type, plain_by_type = report["recall_by_type"], report["plain_presidio"]["recall_by_type"]
    rows += [f"| {kind} | {recall:.3f} | {plain_by_type[kind]:.3f} |" for kind, recall in ours_by_type.items()]
    alarms = report["manuals"]
    rows += [
        "",
        f"False alarms per 1,000 words of manuals ({alarms['ours']['words']:,} words): {alarms['ours']['per_1000_words']}; plain Presidio:"
        f" {alarms['plain']['per_1000_words']}.",
        "",
        f"Speed on {report['cores']} cores: {report['documents_per_s']} documents/s ({report['cpu_s']} CPU seconds) compared with"
        f" {report['plain_presidio']['documents_per_s']} ({report['plain_presidio']['cpu_s']}): {report['speed_ratio']} times in wall time,"
        f" {report['cpu_ratio']} times in CPU time. Two replicas compared with one: {report['replica_ratio']} times.",
        "",
        *(f"- Not reached: {problem}" for problem in not_reached(report)),
    ]
    return "\n".join(rows).rstrip()


def _cells(values: dict[str, Any]) -> Iterator[str]:
    low, high = values["f2_interval"]
    yield from (f"{values[key]:.3f}" for key in ("precision", "recall"))
    yield f"{values['f2']:.3f} [{low:.3f}, {high:.3f}]"
    yield f"{values['mention_recall']:.3f}"
    yield "-" if values["people_safe"] is None else f"{values['people_safe']:.3f}"


def not_reached(report: dict[str, Any]) -> Iterator[str]:
    """Each aim that the figures miss, in words."""
    for name, sides in report["sets"].items():
        values = sides["ours"]
        if SMALL in name:
            if values["recall"] < LEAST_SMALL_RECALL:
                yield f"{name}: recall {values['recall']:.3f}, aim {LEAST_SMALL_RECALL:.2f}."
            continue
        if FORMS in name:
            yield from _missing_forms(name, values["recall_by_type"])
            continue
        least = LEAST_F2 if name.startswith(OTHERS) else LEAST_OWN_F2
        if values["f2"] < least:
            yield f"{name}: F2 {values['f2']:.3f}, aim {least:.2f}; {_weakest(values['recall_by_type'])}."
        if "plain" in sides and values["f2"] < sides["plain"]["f2"]:
            yield f"{name}: F2 {values['f2']:.3f}, below plain Presidio's {sides['plain']['f2']:.3f}."
    if report["manuals"]["ours"]["per_1000_words"] > MOST_ALARMS:
        yield f"false alarms in manuals: {report['manuals']['ours']['per_1000_words']} per 1,000 words, aim {MOST_ALARMS:g}."
    if report["replica_ratio"] < LEAST_REPLICA_RATIO:
        yield f"two replicas: {report['replica_ratio']} times one, aim {LEAST_REPLICA_RATIO}."


def _missing_forms(name: str, recall_by_type: dict[str, float]) -> Iterator[str]:
    for kind, recall in recall_by_type.items():
        if recall < 1:
            yield f"{name}: {kind} recall {recall:.3f}, aim 1."


def _weakest(recall_by_type: dict[str, float]) -> str:
    kind = min(recall_by_type, key=lambda name: recall_by_type[name])
    return f"most is missed of {kind} (recall {recall_by_type[kind]:.3f})"


def write_section(table: str, section: str = SECTION) -> None:
    """Replace a bench's part of docs/benchmarks.md."""
    begin, end = f"<!-- {section} -->", f"<!-- /{section} -->"
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    PAGE.write_text(f"{before}{begin}\n\n{table}\n\n{end}{after}", encoding="utf-8")
