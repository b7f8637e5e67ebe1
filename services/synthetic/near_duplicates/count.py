"""Counts near-duplicates before any dataset is built: every text is sketched once, then sketches are compared."""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from services.synthetic.domain import Document, Sketch
from services.synthetic.ports import Sketcher, Sketches
from tailor.errors import NotFound
from tailor.storage.protocol import ObjectStore
from tailor.words import Selection

PAGE = 100


@dataclass(frozen=True)
class NearDuplicateCount:
    """The number of documents, of those that are compared so far, of near-duplicates of an earlier document, and of groups."""

    documents: int
    compared: int
    near_duplicates: int
    groups: int


@dataclass(frozen=True)
class NearDuplicateCounter:
    """Counts near-duplicates. One call spends at most `seconds` on new sketches."""

    sketches: Sketches
    sketcher: Sketcher
    store: ObjectStore
    seconds: float = 2.0
    clock: Callable[[], float] = time.monotonic

    def count(self, selection: Selection) -> NearDuplicateCount:
        """Sketch texts without a sketch as far as time allows, then count among all sketches. Blocks for a few seconds."""
        end = self.clock() + self.seconds
        while self.clock() < end:
            documents = self.sketches.missing(selection, PAGE)
            if not documents:
                break
            self.sketches.keep([self._sketch(document) for document in documents])
        total, compared = self.sketches.counts(selection)
        pairs = self.sketches.pairs(selection)
        sizes = _group_sizes((pair.first, pair.other) for pair in pairs if self.sketcher.is_near_duplicate(pair))
        return NearDuplicateCount(total, compared, sum(sizes) - len(sizes), len(sizes))

    def _sketch(self, document: Document) -> Sketch:
        try:
            value = json.loads(self.store.get(document.text))
        except NotFound:
            return Sketch(document.document_id, document.text.sha256)
        return self.sketcher.sketch(document, f"{value['prompt'] or ''}\n{value['text']}")


def _group_sizes(pairs: Iterable[tuple[str, str]]) -> list[int]:
    """Sizes of the groups that the pairs connect (union-find with path halving)."""
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
