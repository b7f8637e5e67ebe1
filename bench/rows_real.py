"""Real documents of this machine: the documentation and the manual pages that its packages install, read by ingestion's own parsers.

Half of the files are manual pages, rendered to plain text by groff; the others are text, Markdown, HTML and PDF from /usr/share/doc, unpacked if they are
compressed. A hash of the path chooses them, at most 20 of one family: one command can install thousands of pages that are nearly the same. Changelogs, copyright
files and links to other files are not candidates.
"""

import gzip
import hashlib
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.rows_texts import Paper
from services.anonymization.recognise.languages.detection import LanguageDetector
from services.ingestion.adapters.parse import ParseLimits, ParserPool
from services.ingestion.domain import File, Rejected, add_sections

DOC, MAN = Path("/usr/share/doc"), Path("/usr/share/man")
MAX_FILES, MAX_FAMILY = 1_200, 20
DOC_NAME = re.compile(r"(?i)(?:readme[^/]*|[^/]+\.(?:txt|md|html?|pdf|rst))(?:\.gz)?")
NOT_WANTED = re.compile(r"(?i)change|copyright|news|licen[cs]e|copying|\.(?:c|h|pl|py|sh|js|css|png|gif|svg)(?:\.gz)?$")
FAMILY = re.compile(r"[_.:-]")
MAN_NAME = re.compile(r"[^/]+\.\d\w*(?:\.gz)?")
# Languages of manual pages in /usr/share/man/LANGUAGE that are among the candidates.
LANGUAGES = ("de", "fr", "es", "it", "nl", "pl", "pt", "ru", "ja")
MAX_BYTES = 2_000_000
SECONDS = 20
LIMITS = ParseLimits(wall_seconds=60, cpu_seconds=45, memory_bytes=1536 * 1024 * 1024)
LINK = re.compile(rb"\A\s*(?:'\\\\\".*\n|\.\\\\\".*\n|\s)*\.so ")


@dataclass
class Skipped:
    """Files that gave no document, by reason."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, path: Path) -> None:
        """Count a file, and keep the first three of a reason."""
        self.counts[reason] += 1
        if len(self.examples.setdefault(reason, [])) < 3:
            self.examples[reason].append(str(path))


@dataclass(frozen=True)
class RealCorpus:
    """The documents, and the files that were left out."""

    papers: Sequence[Paper]
    files: int
    skipped: Skipped


def read_machine(max_files: int = MAX_FILES) -> RealCorpus:
    """Choose files and read them. Takes minutes for 1,200 files."""
    paths = choose(candidates(), max_files)
    skipped = Skipped()
    pool, language_of = ParserPool(LIMITS, 1), LanguageDetector()
    try:
        papers = [paper for path in paths if (paper := _read(path, pool, language_of, skipped)) is not None]
    finally:
        pool.close()
    return RealCorpus(papers, len(paths), skipped)


def candidates() -> Iterator[Path]:
    """All files that could be documents."""
    for path in DOC.rglob("*"):
        if (
            DOC_NAME.fullmatch(path.name)
            and not NOT_WANTED.search(path.name)
            and not path.is_symlink()
            and path.is_file()
        ):
            yield path
    for folder in (MAN, *(MAN / language for language in LANGUAGES)):
        yield from (path for path in folder.glob("man*/*") if MAN_NAME.fullmatch(path.name) and not path.is_symlink())


def choose(paths: Iterable[Path], max_files: int) -> list[Path]:
    """At most this number of files by a hash of their paths, and in its order: half of them manual pages, or more if there is too little else."""
    ordered = _limit_families(sorted(paths, key=lambda path: hashlib.sha256(str(path).encode()).digest()))
    pages = [path for path in ordered if path.is_relative_to(MAN)]
    others = [path for path in ordered if not path.is_relative_to(MAN)]
    half = max(max_files - len(pages), max_files // 2)
    chosen = {*others[:half], *pages[: max_files - len(others[:half])]}
    return [path for path in ordered if path in chosen]


def find_family(path: Path) -> tuple[str, str]:
    """The package whose documentation a file is, or the word with which the name of a manual page begins."""
    if path.is_relative_to(MAN):
        return "man", FAMILY.split(path.name)[0]
    return "doc", path.relative_to(DOC).parts[0]


def _limit_families(paths: Iterable[Path]) -> list[Path]:
    """At most 20 paths of a family."""
    counts: Counter[tuple[str, str]] = Counter()
    chosen = []
    for path in paths:
        family = find_family(path)
        counts[family] += 1
        if counts[family] <= MAX_FAMILY:
            chosen.append(path)
    return chosen


def _read(path: Path, pool: ParserPool, language_of: LanguageDetector, skipped: Skipped) -> Paper | None:
    """A file as ingestion and anonymization would store it, with nothing replaced."""
    try:
        name, data = path.name.removesuffix(".gz"), _unpacked(path)
        if path.is_relative_to(MAN):
            name, data = f"{name}.txt", _rendered(data)
        elif "." not in name:
            name = f"{name}.txt"
        parsed = add_sections(pool.parse(File(data, name)))
    except Rejected as error:
        skipped.add(error.reason.value, path)
    except _NotADocument as error:
        skipped.add(str(error), path)
    else:
        kind = "man" if path.is_relative_to(MAN) else parsed.format
        return Paper(str(path), parsed.text, language_of(parsed.text), kind, parsed.spans)
    return None


class _NotADocument(Exception):
    """Says why a file is left out before ingestion would see it."""


def _unpacked(path: Path) -> bytes:
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError):
        raise _NotADocument("unreadable") from None
    if len(data) > MAX_BYTES:
        raise _NotADocument("over 2 MB")
    if not data.strip():
        raise _NotADocument("empty file")
    return data


def _rendered(page: bytes) -> bytes:
    """A manual page as the reader of a terminal sees it."""
    if LINK.match(page):
        raise _NotADocument("link to another manual page")
    command = ["groff", "-mandoc", "-Tutf8", "-P-cbou", "-rHY=0", "-Kutf8"]
    try:
        result = subprocess.run(command, input=page, capture_output=True, timeout=SECONDS, check=True)
    except FileNotFoundError:
        raise _NotADocument("no groff on this machine") from None
    except (subprocess.SubprocessError, OSError):
        raise _NotADocument("not rendered by groff") from None
    return result.stdout
