"""`make folder-rows FOLDER=...`: what the documents of any folder would teach, before anything is published.

The files go through ingestion's parsers and synthetic's rows with the defaults of a specialist and SmolLM2's tokenizer. Nothing is anonymised and nothing is compared
with other documents, apart from equal texts. Every file ends as a document or in a list with its reason; every character of a document is in a row or under a reason.
"""

import argparse
import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import rows_check
from bench.rows_corpus import BASE, SPECIALIST
from bench.rows_measure import furnish
from bench.rows_real import LIMITS
from bench.rows_texts import Paper
from services.anonymization.recognise.languages.detection import LanguageDetector
from services.ingestion.adapters.parse import ParserPool
from services.ingestion.domain import File, ParsedText, Rejected, RejectionReason, add_sections
from services.synthetic.adapters.tokenizers import StoredTokenizers
from services.synthetic.domain import Document, Kind, SkippedText, Text
from services.synthetic.ports import TokenCounter
from services.synthetic.rows.document_rows import make_rows
from services.synthetic.rows.ranges import count_characters
from tailor.cli.submissions import Description, collect
from tailor.storage.ref import Ref
from tailor.values import Labels
from tests.unit.training.stores import FileStore

ENOUGH = 0.9
MAX_BYTES = 20 * 2**20
LISTED = 10


@dataclass(frozen=True)
class FolderDocument:
    """A file that became a document: its rows, its characters without blanks, and those that no row teaches, by reason."""

    path: Path
    format: str
    rows: int
    characters: int
    skipped: Sequence[SkippedText]
    word_coverage: float

    @property
    def untaught(self) -> int:
        """The characters that no row teaches."""
        return sum(item.characters for item in self.skipped)


@dataclass(frozen=True)
class RejectedFile:
    """A file that did not become a document."""

    path: Path
    reason: str


Outcome = FolderDocument | RejectedFile


def main() -> None:
    """Print what the files of the folders would teach."""
    parser = argparse.ArgumentParser(prog="python -m bench.rows_folder", description="Say what documents would teach.")
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="files and folders")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tailor-bench-", ignore_cleanup_errors=True) as folder:
        place = furnish(Path(folder).resolve())
        counter = StoredTokenizers(FileStore(place.store)).for_base(BASE)
        print(render(list(read_folder(arguments.paths, counter))))


def read_folder(paths: Sequence[Path], counter: TokenCounter) -> Iterator[Outcome]:
    """What becomes of each file that `tailor publish` would send."""
    pool, language_of = ParserPool(LIMITS, 1), LanguageDetector()
    seen: set[str] = set()
    try:
        for submission in collect(paths, Description()):
            try:
                parsed = _parse(submission.path, pool)
                digest = hashlib.sha256(parsed.text.encode()).hexdigest()
                if digest in seen:
                    raise Rejected(RejectionReason.DUPLICATE, "")
            except Rejected as error:
                yield RejectedFile(submission.path, error.reason.value)
            else:
                seen.add(digest)
                yield teach(submission.path, parsed, language_of(parsed.text), counter)
    finally:
        pool.close()


def _parse(path: Path, pool: ParserPool) -> ParsedText:
    if path.stat().st_size > MAX_BYTES:
        raise Rejected(RejectionReason.TOO_LARGE, "")
    data = path.read_bytes()
    if not data:
        raise Rejected(RejectionReason.EMPTY, "")
    return add_sections(pool.parse(File(data, path.name)))


def teach(path: Path, parsed: ParsedText, language: str, counter: TokenCounter) -> FolderDocument:
    """The rows of a parsed file, counted."""
    name = hashlib.sha256(str(path).encode()).hexdigest()[:32]
    document = Document(
        f"doc_{name}", 1, "", Kind.DOCUMENT, Labels(), Ref("", "", 0), language=language, spans=parsed.spans
    )
    rows = make_rows(document, Text(None, parsed.text), SPECIALIST, counter)
    answers = ("\n".join(text for role, text in row.messages if role == "assistant") for row in rows.rows)
    return FolderDocument(
        path,
        parsed.format,
        len(rows.rows),
        count_characters(parsed.text, [(0, len(parsed.text))]),
        rows.skipped,
        rows_check.word_coverage([Paper(str(path), parsed.text)], answers),
    )


def render(outcomes: Sequence[Outcome]) -> str:
    """The shares by format, then what was left out and why."""
    documents = [item for item in outcomes if isinstance(item, FolderDocument)]
    rejected = [item for item in outcomes if isinstance(item, RejectedFile)]
    return "\n\n".join(
        part for part in (_table(documents), _rejections(rejected), _reasons(documents), _lowest(documents)) if part
    )


def coverage(documents: Iterable[FolderDocument]) -> float:
    """The share of the documents' characters that some row teaches."""
    pairs = [(item.untaught, item.characters) for item in documents]
    return 1 - sum(untaught for untaught, _ in pairs) / max(1, sum(whole for _, whole in pairs))


def _table(documents: Sequence[FolderDocument]) -> str:
    lines = [
        "| format | documents | characters | rows | coverage | in runs of five words of answers |",
        "|---|---|---|---|---|---|",
    ]
    formats = sorted({item.format for item in documents})
    groups = [(name, [item for item in documents if item.format == name]) for name in formats]
    for name, group in [*groups, ("all", documents)]:
        characters = sum(item.characters for item in group)
        words = sum(item.word_coverage * item.characters for item in group) / max(1, characters)
        rows = sum(item.rows for item in group)
        lines.append(f"| {name} | {len(group):,} | {characters:,} | {rows:,} | {coverage(group):.3f} | {words:.3f} |")
    return "\n".join(lines)


def _rejections(rejected: Sequence[RejectedFile]) -> str:
    counts = Counter((item.reason, item.path.suffix.lower() or "no suffix") for item in rejected)
    lines = [f"- {reason} ({suffix}): {count:,}" for (reason, suffix), count in sorted(counts.items())]
    return "\n".join([f"{len(rejected):,} files gave no document:", "", *lines]) if rejected else ""


def _reasons(documents: Sequence[FolderDocument]) -> str:
    rows: Counter[str] = Counter()
    characters: Counter[str] = Counter()
    for entry in (entry for item in documents for entry in item.skipped):
        rows[entry.reason] += entry.rows
        characters[entry.reason] += entry.characters
    lines = [f"- {reason}: {characters[reason]:,} characters, {rows[reason]:,} rows" for reason in sorted(rows)]
    return "\n".join(["Left out of the documents:", "", *lines]) if lines else ""


def _lowest(documents: Sequence[FolderDocument]) -> str:
    low = sorted((item for item in documents if coverage([item]) < ENOUGH), key=lambda item: coverage([item]))
    lines = [f"- {coverage([item]):.3f} {item.path} ({_why(item)})" for item in low[:LISTED]]
    return "\n".join([f"{len(low):,} documents under {ENOUGH:.2f}:", "", *lines]) if low else ""


def _why(document: FolderDocument) -> str:
    return ", ".join(f"{entry.reason} {entry.characters:,}" for entry in document.skipped if entry.characters)


if __name__ == "__main__":
    main()
