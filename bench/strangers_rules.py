"""Whether an answer teaches prose: by a rule that is not the builder's, and by a reader's committed marks."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

MARKS = Path(__file__).parent / "data" / "strangers_marks.tsv"
RIGHT = "right"
LEADER = re.compile(r"(?:\. ?){5,}")
# Two of the words of a bar of links, with a bar between them.
BAR_WORD = r"\b(?:Prev(?:ious)?|Next|Up|Home|Zurück|Weiter|Nach oben)\b"
LINK_BAR = re.compile(rf"{BAR_WORD}[^|\n]*\|.*{BAR_WORD}", re.IGNORECASE)
# A clause: four words or more in a row that are only letters and hyphens, at least one of which begins with a small letter. A number may
# stand between two of them.
CLAUSE = re.compile(r"(?:[^\W\d_][^\W_-]*(?:-[^\W_]+)*[,;:]?[ \n]+(?:\d+[ \n]+)?){3,}[^\W\d_]+")
# Links are read as their words; quotation marks, brackets and the marks of bold text and code stand around words.
LINK = re.compile(r"\[([^\]\n]*)\]\([^)\n]*\)")
AROUND_WORDS = re.compile(r"[*`„“”»«\"'()\[\]]|\b_|_\b")
CELLS = re.compile(r"(?m)^\|(?:[^|\n]*[^|\s-][^|\n]*\|){2,}\s*$")
GAP, AROUND = "_", "()[]\"„“”»«'`*,;:.!?"
IDEOGRAPHS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]{6,}")


@dataclass(frozen=True)
class AnswerMarks:
    """A reader's marks by the digest of an answer."""

    marks: Mapping[str, str]

    def knows(self, answer: str) -> bool:
        """True if a reader marked the answer."""
        return digest_of(answer) in self.marks

    def is_right(self, answer: str) -> bool:
        """True if a reader found that it teaches prose."""
        return self.marks.get(digest_of(answer)) == RIGHT


def digest_of(answer: str) -> str:
    """The first digits of the SHA-256 of an answer's words in small letters, whose gaps are marked.

    Surrogates are new in each installation; names, addresses and numbers, in which they stand, are therefore gaps.
    """
    parts = groupby(answer.split(), key=_is_plain)
    skeleton = " ".join(" ".join(words) if is_plain else GAP for is_plain, words in parts)
    return hashlib.sha256(skeleton.encode()).hexdigest()[:16]


def _is_plain(part: str) -> bool:
    word = part.strip(AROUND)
    return word.islower() and word.replace("-", "").isalpha()


def read_marks(path: Path = MARKS) -> AnswerMarks:
    """The committed marks; none if there is no file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return AnswerMarks(dict(line.split("\t")[:2] for line in lines if line and not line.startswith("#")))


def draw(answers: Iterable[str], count: int) -> list[str]:
    """`count` answers with different digests, those with the lowest: ids of documents, and so of rows, are new in each installation."""
    by_digest = {digest_of(answer): answer for answer in sorted(answers)}
    return [by_digest[digest] for digest in sorted(by_digest)[:count]]


def has_prose(answer: str) -> bool:
    """False for a table of contents, for navigation, and for an answer with neither a clause nor two rows of a table."""
    lines = [line for line in answer.split("\n") if not line.lstrip().startswith("#")]
    if (
        any(LINK_BAR.search(line) for line in lines)
        or sum(bool(LEADER.search(line)) for line in lines) > len(lines) / 3
    ):
        return False
    text = AROUND_WORDS.sub("", LINK.sub(r"\1", "\n".join(lines)))
    clauses = (match[0] for match in CLAUSE.finditer(text))
    has_clause = any(any(word[0].islower() for word in clause.split()) for clause in clauses)
    return has_clause or len(CELLS.findall(text)) >= 2 or IDEOGRAPHS.search(text) is not None
