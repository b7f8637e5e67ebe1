"""What the barrier replaces in a fixed sample of the strangers' documents, by a reader's committed marks."""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from bench.anonymization_manuals import LEAST_CHARS, PIECE_CHARS, ManualPiece, barrier, replaced
from bench.gold import DATA
from bench.manual_marks import WORD, Marks, interval, per_1000_words
from bench.report import ROOT
from bench.rows_real import LIMITS
from services.anonymization.recognise.obfuscated import undo
from services.ingestion.adapters.parse import ParserPool
from services.ingestion.domain import File, Rejected
from tailor.cli.submissions import FileSubmission

MARKS = DATA / "strangers_replaced.tsv"
UNMARKED = ROOT / ".tailor" / "bench" / "strangers_unmarked.tsv"
PIECES = 40


def measure_alarms(submissions: Sequence[FileSubmission]) -> dict[str, Any]:
    """False alarms per 1,000 words; writes what nobody has marked. A string without a mark counts as wrong. Blocks for minutes."""
    marks, find = Marks.read(MARKS) if MARKS.exists() else Marks(()), barrier()
    counts, unmarked = [], []
    for piece in _draw(submissions):
        rows = list(replaced(piece, find(piece.text)))
        counts.append(marks.count(len(WORD.findall(piece.text)), [row for row, _ in rows]))
        unmarked += [row for row in rows if not marks.mark(row[0])]
    UNMARKED.parent.mkdir(parents=True, exist_ok=True)
    lines = ("\t".join((*row.string, "", row.context, around.replace("\t", " "))) + "\n" for row, around in unmarked)
    UNMARKED.write_text("".join(lines), encoding="utf-8")
    return {
        "false_alarms_per_1000": round(per_1000_words(counts), 2),
        "false_alarms_interval": [round(end, 2) for end in interval(counts)],
        "false_alarms_words": sum(count.words for count in counts),
        "replaced_unmarked": sum(count.unmarked for count in counts),
    }


def _draw(submissions: Sequence[FileSubmission]) -> Iterator[ManualPiece]:
    """Pieces of drawn documents, one of each, as ingestion reads them."""
    drawn = sorted(submissions, key=lambda item: hashlib.sha256(_name(item.path).encode()).digest())
    pool = ParserPool(LIMITS, 1)
    try:
        yield from islice((piece for item in drawn if (piece := _read(item, pool))), PIECES)
    finally:
        pool.close()


def _read(item: FileSubmission, pool: ParserPool) -> ManualPiece | None:
    try:
        text = undo(pool.parse(File(item.path.read_bytes(), item.path.name)).text).text
    except Rejected:
        return None
    if len(text) < LEAST_CHARS:
        return None
    last = max(1, len(text) // PIECE_CHARS)
    number = int(hashlib.sha256(_name(item.path).encode()).hexdigest()[:8], 16) % last
    return ManualPiece(item.path.parent.name, item.path.name, text[number * PIECE_CHARS : (number + 1) * PIECE_CHARS])


def _name(path: Path) -> str:
    """The same on every machine."""
    return f"{path.parent.name}/{path.name}"
