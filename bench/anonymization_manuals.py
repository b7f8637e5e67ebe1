"""False alarms of the barrier in manuals by other hands, by the marks of a reader: `python -m bench.anonymization_manuals`.

The manuals are Debian packages that no rule was tuned on. They are downloaded with apt into `.tailor/bench/manuals`; without apt and man the bench says so and
measures nothing. Pieces are drawn by digests, so the sample is the same everywhere. What has no mark goes to a file to be read and marked.
"""

import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from bench.anonymization_page import write_section
from bench.gold import DATA
from bench.manual_marks import WORD, Marks, PieceCount, Replaced, context_of, interval, per_1000_words
from services.anonymization.domain import Finding, merge
from services.anonymization.policy.policy_file import load_policy
from services.anonymization.recognise.detectors.definition import load_detectors
from services.anonymization.recognise.languages.detection import LanguageDetector
from services.anonymization.recognise.languages.loading import load_section_analyzer
from services.anonymization.recognise.mentions import Mentions
from services.anonymization.recognise.obfuscated import undo
from services.anonymization.recognise.overlaps import Stretches
from services.anonymization.surrogates import generalisation
from services.ingestion.formats.office import html_to_markdown

MARKS = DATA / "manual_marks.tsv"
FOLDER = Path(__file__).parents[1] / ".tailor" / "bench"
REPORT, UNMARKED = FOLDER / "anonymization-manuals.json", FOLDER / "anonymization-manuals-unmarked.tsv"
SECTION = "anonymization-manuals"
PIECES, PIECE_CHARS, LEAST_CHARS = 12, 8_000, 1_500
MOST_ALARMS = 2.0
SHOWN_AROUND = 60


@dataclass(frozen=True)
class Manual:
    """A package of manuals of one kind; `files` is a pattern of paths within it."""

    kind: str
    package: str
    files: str


MANUALS = (
    Manual("administration manual, HTML", "apache2-doc", "usr/share/doc/apache2-doc/manual/en/**/*.html"),
    Manual("application guide, HTML", "gimp-help-en", "usr/share/gimp/2.0/help/en/*.html"),
    Manual("server manual, indented text", "exim4-base", "usr/share/doc/exim4-base/*.txt.gz"),
    Manual("manual pages, sections 4, 5 and 7", "manpages", "usr/share/man/man[457]/*.gz"),
)


@dataclass(frozen=True)
class ManualPiece:
    """A stretch of a manual, as long as a document of some pages."""

    package: str
    file: str
    text: str


def fetch(manual: Manual, folder: Path = FOLDER / "manuals") -> Path:
    """The unpacked package. Downloads it if it is not there."""
    target = folder / manual.package
    if not target.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", "--quiet", manual.package], cwd=folder, check=True)
        archive = next(folder.glob(f"{manual.package}_*.deb"))
        subprocess.run(["dpkg-deb", "--extract", str(archive), str(target)], check=True)
    return target


@cache
def read(path: Path) -> str:
    """A file as a reader sees it, without what hides letters."""
    return undo(_read(path)).text


def _read(path: Path) -> str:
    if re.search(r"\.\d\.gz$", path.name):
        environment = os.environ | {"MANWIDTH": "90", "MAN_KEEP_FORMATTING": ""}
        page = subprocess.run(
            ["man", "-P", "cat", "-l", str(path)], capture_output=True, text=True, env=environment, check=False
        )
        return re.sub(r".\x08", "", page.stdout)
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    text = data.decode("utf-8", errors="replace")
    return html_to_markdown(text) if path.suffix == ".html" else text


def pieces(manual: Manual, root: Path) -> list[ManualPiece]:
    """The sample of a manual. Of each file as many pieces come into question as it has."""
    paths = [path for path in root.glob(manual.files) if path.is_file() and not path.is_symlink()]
    # Sizes bound the number of pieces, so that few files must be read.
    places = [(path, number) for path in paths for number in range(1 + path.stat().st_size // PIECE_CHARS)]
    places.sort(key=lambda place: hashlib.sha256(f"{place[0].relative_to(root)}#{place[1]}".encode()).digest())
    drawn = (
        ManualPiece(
            manual.package, str(path.relative_to(root)), read(path)[number * PIECE_CHARS : (number + 1) * PIECE_CHARS]
        )
        for path, number in places
    )
    return list(islice((piece for piece in drawn if len(piece.text) >= LEAST_CHARS), PIECES))


def barrier() -> Callable[[str], list[Finding]]:
    """Everything that the default policy replaces in a document."""
    policy = load_policy()
    analyzer = load_section_analyzer(load_detectors(), policy, LanguageDetector(), is_held=False)

    def find(text: str) -> list[Finding]:
        analysis, allowed = analyzer.analyze(text), policy.find_allowed(text)
        mentions = Mentions(analyzer.lexicon_of(section.reader for section in analysis.sections))
        stretches = Stretches(allowed)
        figures = generalisation.find(
            text, {kind for kind in ("DATE_TIME", "MONEY", "AGE", "POSTCODE") if not policy.keeps(kind)}
        )
        free = (figure for figure in figures if not stretches.overlap(figure.start, figure.end))
        return merge([*mentions.complete(text, analysis.findings, allowed), *free], text)

    return find


def replaced(piece: ManualPiece, findings: list[Finding]) -> Iterator[tuple[Replaced, str]]:
    """What is replaced in a piece, and the text around it."""
    for finding in findings:
        start, end = finding.start, finding.end
        value = " ".join(piece.text[start:end].split())
        around = (
            piece.text[max(0, start - SHOWN_AROUND) : start] + "«" + value + "»" + piece.text[end : end + SHOWN_AROUND]
        )
        yield (
            Replaced(piece.package, piece.file, finding.entity_type, value, context_of(piece.text, start, end)),
            " ".join(around.split()),
        )


def measure(marks: Marks) -> tuple[dict[str, list[PieceCount]], list[tuple[Replaced, str]]]:
    """The counts of each kind, and what nobody has marked."""
    find = barrier()
    counts: dict[str, list[PieceCount]] = {}
    unmarked: list[tuple[Replaced, str]] = []
    for manual in MANUALS:
        counts[manual.kind] = []
        for piece in pieces(manual, fetch(manual)):
            rows = list(replaced(piece, find(piece.text)))
            counts[manual.kind].append(marks.count(len(WORD.findall(piece.text)), [row for row, _ in rows]))
            unmarked += [row for row in rows if not marks.mark(row[0])]
    return counts, unmarked


def figures(counts: dict[str, list[PieceCount]]) -> dict[str, dict[str, Any]]:
    """The figures of each kind, and of all."""
    together = counts | {"all": [count for group in counts.values() for count in group]}
    return {
        kind: {
            "pieces": len(group),
            "words": sum(count.words for count in group),
            "replaced": sum(count.replaced for count in group),
            "wrong": sum(count.wrong for count in group),
            "unmarked": sum(count.unmarked for count in group),
            "false_alarms_per_1000": round(per_1000_words(group), 2),
            "interval": [round(end, 2) for end in interval(group)],
        }
        for kind, group in together.items()
    }


def render(report: dict[str, dict[str, Any]]) -> str:
    """The table as Markdown."""
    rows = [
        "| manuals | pieces | words | replaced | of these wrong | false alarms per 1,000 words |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for kind, values in report.items():
        low, high = values["interval"]
        shown = f"{values['false_alarms_per_1000']:.2f} [{low:.2f}, {high:.2f}]"
        rows.append(
            f"| {kind} | {values['pieces']} | {values['words']:,} | {values['replaced']} | {values['wrong']} | {shown} |"
        )
    missed = [kind for kind, values in report.items() if values["false_alarms_per_1000"] > MOST_ALARMS]
    return "\n".join([*rows, "", *(f"- Not reached: {kind}, aim {MOST_ALARMS:g}." for kind in missed)]).rstrip()


def main() -> None:
    """Measure, print the table, and write the report, the page's section, and what is to be marked."""
    missing = [program for program in ("apt-get", "dpkg-deb", "man") if shutil.which(program) is None]
    if missing:
        print(f"The manuals cannot be fetched and read here: {', '.join(missing)} is missing. Nothing was measured.")
        return
    counts, unmarked = measure(Marks.read(MARKS))
    report = figures(counts)
    table = render(report)
    print(table)
    FOLDER.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    lines = ("\t".join((*row.string, "", row.context, around)) for row, around in unmarked)
    UNMARKED.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    write_section(table, SECTION)


if __name__ == "__main__":
    main()
