"""`make bench-rows`: the rows that synthetic makes, from 100,000 generated documents and from the documentation on this machine, and what they teach.

`python -m bench.rows generated real learning` measures only the named parts and keeps the figures of the others; `--documents N`, `--files N` and `--tokens N`
set the number of generated documents, of real files and of trained tokens, `--held-out N` that of the held-out documents in the comparison. With other sizes than
the defaults, the page and its plot stay as they are.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import rows_learning, rows_page
from bench.report import PLOTS, ROOT, keep
from bench.rows_measure import MORE, Place, furnish, measure
from bench.rows_real import MAX_FILES, read_machine
from bench.rows_texts import Generator

NAME = "rows"
PARTS = ("generated", "real", "learning")
DOCUMENTS, TOKENS, HELD_OUT = 100_000, 24_000, 40
LEARNING_FILES = 600
CHECKED, CHECKED_GROUP = 2_000, 50


def main() -> None:
    """Measure, print and store the figures."""
    arguments = parse_arguments()
    report = ROOT / ".tailor" / "bench" / f"{NAME}.json"
    figures: dict[str, Any] = (
        json.loads(report.read_text(encoding="utf-8")) if report.exists() and arguments.parts else {}
    )
    parts = arguments.parts or PARTS
    figures["cores"] = os.cpu_count()
    with tempfile.TemporaryDirectory(prefix="tailor-bench-", ignore_cleanup_errors=True) as folder:
        place = furnish(Path(folder).resolve())
        for name, part in measure_parts(place, parts, arguments):
            figures[name] = part
            store(report, figures)
    section = rows_page.render(figures)
    print(section)
    if not arguments.is_small:
        rows_page.plot(figures, PLOTS / "rows.svg")
        keep(NAME, figures, section)


def measure_parts(
    place: Place, parts: Sequence[str], arguments: argparse.Namespace
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each part's figures as soon as they are measured: the later ones take long."""
    if "generated" in parts:
        yield "generated", measure_generated(place, arguments.documents)
    if "real" in parts:
        yield "real", measure_real(place, arguments.files)
    if "learning" in parts:
        papers = read_machine(min(arguments.files, LEARNING_FILES)).papers
        yield "learning", rows_learning.measure(place, papers, arguments.tokens, arguments.held_out)


def store(report: Path, figures: Mapping[str, Any]) -> None:
    """Write the figures."""
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    """The parts and sizes of the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.rows", description="Measure synthetic's rows.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"only these parts: {', '.join(PARTS)}")
    parser.add_argument("--documents", type=int, default=DOCUMENTS, help="generated documents")
    parser.add_argument("--files", type=int, default=MAX_FILES, help="max real files")
    parser.add_argument("--tokens", type=int, default=TOKENS, help="trained tokens of each side")
    parser.add_argument("--held-out", type=int, default=HELD_OUT, help="max held-out documents that are compared")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"unknown parts: {', '.join(sorted(unknown))}")
    sizes = (arguments.documents, arguments.files, arguments.tokens, arguments.held_out)
    arguments.is_small = sizes != (DOCUMENTS, MAX_FILES, TOKENS, HELD_OUT)
    return arguments


def measure_generated(place: Place, documents: int) -> dict[str, Any]:
    """The figures of generated documents. Coverage is recomputed on groups of them, so that near-duplicates are in the same group."""
    generator = Generator()
    step = max(CHECKED_GROUP, documents * CHECKED_GROUP // CHECKED)
    starts = range(0, documents - CHECKED_GROUP + 1, step)
    checked = [paper for start in starts for paper in generator.papers(start, CHECKED_GROUP)]
    more = list(generator.papers(documents, MORE))
    return measure(place, "generated", generator.papers(0, documents), more, checked)


def measure_real(place: Place, max_files: int) -> dict[str, Any]:
    """The figures of the documents of this machine."""
    corpus = read_machine(max_files)
    later = min(MORE, len(corpus.papers) // 4)
    papers, more = corpus.papers[:-later], corpus.papers[-later:]
    figures = measure(place, "real", papers, more, papers)
    sources = {"files": corpus.files, "not_read": corpus.skipped.counts, "not_read_examples": corpus.skipped.examples}
    return {**figures, **sources}


if __name__ == "__main__":
    main()
