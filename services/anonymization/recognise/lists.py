"""Names from files that the operator exports, for instance from a CRM: always personal by type, or never. Read again when a file changes.

A file is UTF-8 text with one name per line (`#` begins a comment), or a CSV file whose column `name`, or else first column, has the names.
"""

import csv
import io
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.anonymization.domain import Finding, Policy
from services.anonymization.recognise.lexicon import fold
from services.anonymization.recognise.tokens import Token, is_space, tokenise
from tailor.errors import InvalidArgument, Reason
from tailor.logging import get_logger

log = get_logger(__name__)

MAX_FILE_BYTES = 32 * 2**20
MAX_NAMES = 1_000_000
SHORTEST_NAME, LONGEST_NAME = 2, 200
LOOK_SECONDS = 1.0
SCORE = 1.0
ALLOWED = ""


@dataclass(frozen=True)
class Name:
    """A name of a file: its type, folded words, and the signs between them. A type of "" means that the name is allowed."""

    entity_type: str
    words: tuple[str, ...]
    signs: tuple[str, ...]

    def matches(self, tokens: Sequence[Token], folded: Sequence[str], place: int) -> bool:
        """True if the name stands at a place of a text. A name of one word must begin with a capital letter, because words are common."""
        end = place + len(self.words)
        if tuple(folded[place:end]) != self.words:
            return False
        if len(self.words) == 1:
            return tokens[place].is_capitalised or tokens[place].text[0].isdigit()
        gaps = (token.gap for token in tokens[place + 1 : end])
        return all(is_space(gap) or gap.strip() == sign for gap, sign in zip(gaps, self.signs, strict=True))


class NameIndex:
    """Names by their words, so that a text is searched in the same time however many names begin with "The"."""

    def __init__(self, names: Iterable[Name]) -> None:
        self._by_words: dict[tuple[str, ...], list[Name]] = {}
        lengths: dict[str, set[int]] = {}
        # An allowed name wins over a denied one.
        for name in sorted(names, key=lambda name: name.entity_type):
            self._by_words.setdefault(name.words, []).append(name)
            lengths.setdefault(name.words[0], set()).add(len(name.words))
        self._lengths = {word: sorted(counts, reverse=True) for word, counts in lengths.items()}

    def find(self, tokens: Sequence[Token], folded: Sequence[str], place: int) -> Name | None:
        """The longest name that stands at a place of a text."""
        for length in self._lengths.get(folded[place], ()):
            for name in self._by_words.get(tuple(folded[place : place + length]), ()):
                if name.matches(tokens, folded, place):
                    return name
        return None


@dataclass(frozen=True)
class FileState:
    """The last content of a file that could be read, and the file's time and size then."""

    stamp: tuple[int, int]
    names: tuple[Name, ...]


class TermLists:
    """The files that a policy names. Thread-safe. Looks for changes at most once a second."""

    def __init__(self, folder: Path | None, policy: Policy, clock: Callable[[], float] = time.monotonic) -> None:
        """Read all files. Raises InvalidArgument (INVALID_POLICY), naming each file that cannot be read."""
        self._folder = folder
        self._files = dict(_files(policy))
        self._clock = clock
        self._lock = threading.Lock()
        self._states: dict[str, FileState] = {}
        self._names = NameIndex(())
        self._looked = clock()
        problems = dict(filter(None, map(self._load, self._files)))
        if problems:
            raise InvalidArgument(
                Reason.INVALID_POLICY, "A file of the policy cannot be read.", field_violations=problems
            )
        self._index()

    def search(self, text: str) -> tuple[list[Finding], list[tuple[int, int]]]:
        """The names in a text that are always personal, and the [start, end) stretches that never are.

        Of overlapping names, the longest counts.
        """
        if not self._files:
            return [], []
        self._look()
        index, tokens = self._names, tokenise(text)
        folded = [fold(token.text) for token in tokens]
        denied: list[Finding] = []
        allowed: list[tuple[int, int]] = []
        place = 0
        while place < len(tokens):
            name = index.find(tokens, folded, place)
            if name is not None:
                start, end = tokens[place].start, tokens[place + len(name.words) - 1].bare_end
                if name.entity_type == ALLOWED:
                    allowed.append((start, end))
                else:
                    denied.append(Finding(start, end, name.entity_type, SCORE))
            place += len(name.words) if name else 1
        return denied, allowed

    def _look(self) -> None:
        """Read the files that changed. One that cannot be read keeps its last content."""
        with self._lock:
            if self._clock() - self._looked < LOOK_SECONDS:
                return
            self._looked = self._clock()
            changed = [field for field in self._files if self._stamp(field) != self._states[field].stamp]
            for problem in filter(None, map(self._load, changed)):
                log.warning("list not read again", field=problem[0], problem=problem[1])
            if changed:
                self._index()

    def _stamp(self, field: str) -> tuple[int, int]:
        try:
            stat = self._path(field).stat()
        except OSError:
            return self._states[field].stamp if field in self._states else (0, -1)
        return stat.st_mtime_ns, stat.st_size

    def _path(self, field: str) -> Path:
        return (self._folder or Path()) / self._files[field][1]

    def _load(self, field: str) -> tuple[str, str] | None:
        """Read one file. Returns its field and the problem if it cannot be read."""
        if self._folder is None:
            return field, "names a file, but TAILOR_LISTS_DIR is not set"
        entity_type, name = self._files[field]
        stamp = self._stamp(field)
        try:
            path = self._path(field).resolve(strict=True)
            if not path.is_relative_to(self._folder.resolve()) or path.stat().st_size > MAX_FILE_BYTES:
                return field, f"must be a file of at most {MAX_FILE_BYTES // 2**20} MiB in TAILOR_LISTS_DIR"
            names = tuple(_names(entity_type, path.read_text(encoding="utf-8-sig"), is_csv=name.endswith(".csv")))
        except (OSError, UnicodeDecodeError):
            return field, "names a file that is missing or not UTF-8"
        if len(names) > MAX_NAMES:
            return field, f"names a file with over {MAX_NAMES} names"
        self._states[field] = FileState(stamp, names)
        return None

    def _index(self) -> None:
        self._names = NameIndex(name for state in self._states.values() for name in state.names)


def _files(policy: Policy) -> Iterator[tuple[str, tuple[str, str]]]:
    """The fields of a policy that name a file, with the type and the path."""
    for kind, paths in policy.deny_files.items():
        for path in paths:
            yield f"deny.{kind}: {path}", (kind, path)
    for path in policy.allow_files:
        yield f"allow.terms: {path}", (ALLOWED, path)


def _names(entity_type: str, content: str, *, is_csv: bool) -> Iterator[Name]:
    for line in _cells(content) if is_csv else _lines(content):
        text = " ".join(line.split())
        tokens = tokenise(text)
        if tokens and SHORTEST_NAME <= len(text) <= LONGEST_NAME:
            words = tuple(fold(token.text) for token in tokens)
            yield Name(entity_type, words, tuple(token.gap.strip() for token in tokens[1:]))


def _lines(content: str) -> Iterator[str]:
    return (line for line in content.splitlines() if not line.lstrip().startswith("#"))


def _cells(content: str) -> Iterable[str]:
    rows = [row for row in csv.reader(io.StringIO(content)) if row]
    header = [cell.strip().casefold() for cell in rows[0]] if rows else []
    if "name" in header:
        column = header.index("name")
        return (row[column] for row in rows[1:] if len(row) > column)
    return (row[0] for row in rows)


NO_LISTS = TermLists(None, Policy("", {}))
