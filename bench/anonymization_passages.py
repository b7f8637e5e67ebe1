"""Short passages of many kinds in eight languages: chat, minutes, CVs, invoices, court files, letters; small letters, capitals, tables.

They were written with their values marked before anybody saw what the barrier finds in them. Half of each language's, drawn by chance, were then
read with the answers, and general rules were mended (`read`); the other half was only counted (`unread`). What is marked `EITHER`, such as the
name of a court, counts on neither side; nor do types that the default policy keeps. One person wrote them: do not read them as a sample of a company's texts.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.anonymization_languages import Find, Place, barrier, score
from bench.anonymization_page import write_section
from bench.generated import Gold
from bench.gold import DATA, unmark
from services.anonymization.review.estimates import clopper_pearson

PASSAGES = DATA / "passages.txt"
REPORT = Path(__file__).parents[1] / ".tailor" / "bench" / "anonymization-passages.json"
SECTION = "anonymization-passages"
EITHER = "EITHER"
HALVES = ("read", "unread")
SHOWN = ("PERSON", "CLIENT", "ADDRESS")


def read_passages(half: str) -> list[Gold]:
    """The passages of a half. Their titles are `half/language-kind`."""
    parts = re.split(r"(?m)^%%% ", PASSAGES.read_text(encoding="utf-8"))[1:]
    named = (part.split("\n", 1) for part in parts)
    return [
        unmark(title, title.split("/")[1][:2], body.strip()) for title, body in named if title.startswith(f"{half}/")
    ]


def without_either(golds: Iterable[Gold], find: Find) -> tuple[list[Gold], Find]:
    """The passages without what counts on neither side, and a search that leaves it out."""
    either = {gold.text: [span[:2] for span in gold.spans if span[2] == EITHER] for gold in golds}

    def search(text: str) -> list[Place]:
        skipped = {at for start, end in either[text] for at in range(start, end)}
        return [(at, at + 1) for start, end in find(text) for at in range(start, end) if at not in skipped]

    kept = [Gold(gold.name, gold.language, gold.text, tuple(s for s in gold.spans if s[2] != EITHER)) for gold in golds]
    return kept, search


def mentions(golds: Iterable[Gold], find: Find) -> dict[str, tuple[int, int]]:
    """By type, language and in all: the mentions of which nothing is left, and all mentions."""
    whole, total = Counter[str](), Counter[str]()
    for gold in golds:
        marked = {at for start, end in find(gold.text) for at in range(start, end)}
        for start, end, kind in gold.spans:
            is_whole = all(at in marked or not gold.text[at].isalnum() for at in range(start, end))
            for name in ("all", kind, gold.language):
                total[name] += 1
                whole[name] += is_whole
    return {name: (whole[name], count) for name, count in total.items()}


def measure(find: Find) -> dict[str, dict[str, Any]]:
    """The figures of both halves."""
    figures = {}
    for half in HALVES:
        golds, search = without_either(read_passages(half), find)
        figures[half] = score(golds, search) | {"mentions": mentions(golds, search)}
    return figures


def render(figures: dict[str, dict[str, Any]]) -> str:
    """The tables as Markdown."""
    rows = ["| half | texts | values | precision | recall | F2 |", "|---|---|---|---|---|---|"]
    for half, values in figures.items():
        low, high = values["f2_interval"]
        shown = f"{values['precision']:.3f} | {values['recall']:.3f} | {values['f2']:.3f} [{low:.3f}, {high:.3f}]"
        rows.append(f"| {half} | {values['texts']} | {values['values']} | {shown} |")
    rows += ["", "| mentions of which nothing is left | read | unread |", "|---|---|---|"]
    for name in (
        "all",
        *SHOWN,
        *sorted(key for key in figures["unread"]["mentions"] if key.islower() and key != "all"),
    ):
        rows.append(f"| {name} | {' | '.join(_share(*figures[half]['mentions'][name]) for half in HALVES)} |")
    return "\n".join(rows)


def _share(whole: int, total: int) -> str:
    low, high = clopper_pearson(whole, total)
    return f"{whole} of {total}: {whole / total:.3f} [{low:.3f}, {high:.3f}]"


def main() -> None:
    """Measure, print the tables, and write the report and the page's section."""
    figures = measure(barrier())
    tables = render(figures)
    print(tables)
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    write_section(tables, SECTION)


if __name__ == "__main__":
    main()
