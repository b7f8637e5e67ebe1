"""Counting near-duplicates before any dataset is built: sketches are made once for each text, then compared."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from services.synthetic.domain import Document, Selection
from tailor.errors import NotFound
from tailor.storage.protocol import ObjectStore

PAGE = 100


@dataclass(frozen=True)
class Sketch:
    """A text in small: its MinHash, and its bands. Texts that share no band are not alike. Both are empty where the text is gone."""

    document_id: str
    text_sha256: str
    minhash: bytes = b""
    bands: tuple[int, ...] = ()


@dataclass(frozen=True)
class Pair:
    """Two documents that share a band, and their MinHashes."""

    first: str
    first_minhash: bytes
    other: str
    other_minhash: bytes


@dataclass(frozen=True)
class NearDuplicateCount:
    """Documents, those of them that are compared so far, those that are nearly the same as an earlier one, and groups of such."""

    documents: int
    compared: int
    near_duplicates: int
    groups: int


class Sketcher(Protocol):
    """Makes sketches and compares them."""

    def sketch(self, document: Document, text: str) -> Sketch:
        """The sketch of a document's text."""
        ...

    def alike(self, pair: Pair) -> bool:
        """True if the two are nearly the same."""
        ...


class Sketches(Protocol):
    """The sketches in synthetic's own database. Every method raises Unavailable while it does not answer."""

    def missing(self, selection: Selection, limit: int) -> list[Document]:
        """Selected documents whose current text has no sketch, at most so many."""
        ...

    def keep(self, sketches: Sequence[Sketch]) -> None:
        """Keep sketches of documents that are still there."""
        ...

    def counts(self, selection: Selection) -> tuple[int, int]:
        """Selected documents, and those of them whose current text has a sketch."""
        ...

    def pairs(self, selection: Selection) -> Iterator[Pair]:
        """Documents that share a band with an earlier one, as a stream; a pair once for each `first`."""
        ...


@dataclass(frozen=True)
class Comparison:
    """What counting works with. A call sketches for `seconds` at most."""

    sketches: Sketches
    sketcher: Sketcher
    store: ObjectStore
    seconds: float = 2.0
    clock: Callable[[], float] = time.monotonic


def count_near_duplicates(comparison: Comparison, selection: Selection) -> NearDuplicateCount:
    """Sketch what has no sketch, as far as the time goes, then count among all that have one."""
    end = comparison.clock() + comparison.seconds
    while comparison.clock() < end:
        documents = comparison.sketches.missing(selection, PAGE)
        if not documents:
            break
        comparison.sketches.keep([_sketch(comparison, document) for document in documents])
    total, compared = comparison.sketches.counts(selection)
    pairs = comparison.sketches.pairs(selection)
    groups = _group_sizes((pair.first, pair.other) for pair in pairs if comparison.sketcher.alike(pair))
    return NearDuplicateCount(total, compared, sum(groups) - len(groups), len(groups))


def _sketch(comparison: Comparison, document: Document) -> Sketch:
    try:
        value = json.loads(comparison.store.get(document.text))
    except NotFound:
        return Sketch(document.document_id, document.text.sha256)
    return comparison.sketcher.sketch(document, f"{value['prompt'] or ''}\n{value['text']}")


def _group_sizes(pairs: Iterable[tuple[str, str]]) -> list[int]:
    """Members of each group of documents that pairs connect."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while parent.setdefault(key, key) != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for first, other in pairs:
        parent[root(other)] = root(first)
    sizes: dict[str, int] = {}
    for key in list(parent):
        sizes[root(key)] = sizes.get(root(key), 0) + 1
    return list(sizes.values())
