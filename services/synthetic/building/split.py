"""Joins documents that share passages to components, assigns new ones to their side of the split, and makes the held-out rows."""

import itertools
from collections.abc import Collection, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy

from services.synthetic.adapters.corpus import SqlCorpus
from services.synthetic.building.grams import shared_rows
from services.synthetic.building.limits import Mask, SeenAnswers
from services.synthetic.building.segments import Context, MadeRows, count_letters, make_segment, read_members
from services.synthetic.corpus import Assignment, Link, Member, SplitSize
from services.synthetic.domain import Kind
from services.synthetic.parquet import read_column
from services.synthetic.ports import Workers
from tailor.datasets import SkippedCount
from tailor.rounds import split_draw
from tailor.storage.protocol import ObjectStore
from tailor.values import Filters, RowPolicy

# Documents whose rows are made in one task.
CHUNK = 64
MAX_AHEAD = 3
# A passage or 13-gram in as many documents is boilerplate, if the specialist's filters do not set another number.
BOILERPLATE_DOCUMENTS = 10
OVERLAP, REPEATED, HELD_OUT_LIMIT = "overlap", "repeated", "max_held_out_rows"
# Held-out documents, of each four at most one. Rows of one document are one cluster of an interval: the t-quantile of five clusters is 2.8,
# that of two 12.7, which decides nothing.
MIN_DOCUMENTS, DOCUMENTS_EACH = 5, 4
# Of the wanted held-out rows: enough to look for no more, and too few to leave it at that.
ENOUGH, TOO_FEW = 0.9, 0.5


def boilerplate_documents(filters: Filters) -> int:
    """In how many documents a text must stand to be boilerplate."""
    return filters.boilerplate_documents or BOILERPLATE_DOCUMENTS


@dataclass(slots=True)
class LinkedDocuments:
    """Documents that share near-duplicate passages: those without an assignment, and the sides of the others.

    `counts` has the rows of the new documents, once they are counted.
    """

    component_id: str
    new: list[str] = field(default_factory=list)
    sides: frozenset[bool] = frozenset()
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """All counted rows."""
        return sum(self.counts.values())

    @property
    def documents(self) -> int:
        """The documents with rows."""
        return sum(count > 0 for count in self.counts.values())

    @property
    def known_side(self) -> bool | None:
        """The side that its earlier documents have; None if it has none.

        If it joins both sides, the new documents are held out: the 13-gram check then removes their rows, and no earlier row.
        """
        return any(self.sides) if self.sides else None

    @property
    def draw(self) -> int:
        """A fixed draw, 0 to 99. It is held out if it is below the share of the specialist."""
        return split_draw(self.component_id)


def group_components(unassigned: Sequence[str], links: Iterable[Link]) -> list[LinkedDocuments]:
    """The components of the unassigned documents, in the order of their first documents.

    A component keeps the id of its earlier documents, the lowest if there are several; a new one has the id of its first document.
    """
    forest, known = _Forest(), dict[str, Link]()
    first: dict[int, str] = {}
    for link in links:
        forest.join(first.setdefault(link.cluster_id, link.document_id), link.document_id)
        if link.component_id:
            known[link.document_id] = link
    components: dict[str, LinkedDocuments] = {}
    for document_id in unassigned:
        components.setdefault(forest.root(document_id), LinkedDocuments(document_id)).new.append(document_id)
    _add_known(components, known, forest)
    return list(components.values())


def _add_known(components: dict[str, LinkedDocuments], known: dict[str, Link], forest: "_Forest") -> None:
    component_ids: dict[str, str] = {}
    for document_id, link in known.items():
        root = forest.root(document_id)
        if root in components:
            components[root].sides |= {link.held_out}
            component_ids[root] = min(component_ids.get(root, link.component_id), link.component_id)
    for root, component_id in component_ids.items():
        components[root].component_id = component_id


class _Forest:
    """Union-find with path halving."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def root(self, key: str) -> str:
        while self._parent.get(key, key) != key:
            above = self._parent[key]
            self._parent[key] = self._parent.get(above, above)
            key = self._parent[key]
        return key

    def join(self, first: str, other: str) -> None:
        above, below = self.root(first), self.root(other)
        if above != below:
            self._parent[below] = above


@dataclass(frozen=True)
class Splitter:
    """Assigns documents and makes held-out rows, with the workers of one build."""

    context: Context
    corpus: SqlCorpus
    store: ObjectStore
    workers: Workers

    def assign(self) -> None:
        """Assign every document that has no assignment. Decisions never change later."""
        unassigned = self.corpus.unassigned()
        if not unassigned:
            return
        threshold = boilerplate_documents(self.context.specialist.filters)
        golden = self.corpus.golden(unassigned)
        components = group_components(unassigned, self.corpus.links(threshold))
        free = [
            candidate
            for candidate in components
            if candidate.known_side is None and not golden.intersection(candidate.new)
        ]
        drawn = self._draw(free, self.context.specialist.rows, len(unassigned))
        self.corpus.assign(
            assignment for component in components for assignment in _assignments(component, drawn, golden)
        )

    def _draw(self, free: Sequence[LinkedDocuments], policy: RowPolicy, new: int) -> set[str]:
        """The ids of components that are held out: those that a fixed hash draws, and more if these are few."""
        size, percent = self.corpus.split_size(), policy.held_out_percent
        drawn = list(self._fill([component for component in free if component.draw < percent], policy, size))
        size = SplitSize(
            size.documents + new,
            size.held_out_documents + sum(component.documents for component in drawn),
            size.held_out_rows + sum(component.rows for component in drawn),
        )
        drawn += self._complete([component for component in free if component.draw >= percent], policy, size)
        return {component.component_id for component in drawn}

    def _complete(
        self, others: Sequence[LinkedDocuments], policy: RowPolicy, size: SplitSize
    ) -> Iterator[LinkedDocuments]:
        """Of the others those with the lowest draws, until enough documents are held out: of a small corpus, chance may draw hardly any."""
        wanted = min(MIN_DOCUMENTS, size.documents // DOCUMENTS_EACH)
        documents, rows = size.held_out_documents, size.held_out_rows
        nearest = sorted(others, key=lambda candidate: candidate.draw)[:CHUNK]
        for component in self._count(nearest if documents < wanted else ()):
            if 0 < component.documents <= wanted - documents and component.rows <= policy.max_held_out_rows - rows:
                documents, rows = documents + component.documents, rows + component.rows
                yield component
                if documents >= wanted:
                    return

    def _fill(
        self, candidates: Sequence[LinkedDocuments], policy: RowPolicy, size: SplitSize
    ) -> Iterator[LinkedDocuments]:
        """Of the candidates each one whose rows all fit, until there are enough.

        If too few rows fit, the smallest of the other components is held out too, and the build leaves out the rows beyond the limit.
        """
        total, limit = size.held_out_rows, policy.max_held_out_rows
        smallest: LinkedDocuments | None = None
        for component in self._count(candidates if total < ENOUGH * limit else ()):
            if total + component.rows <= limit:
                total += component.rows
                yield component
                if total >= ENOUGH * limit:
                    return
            elif smallest is None or component.rows < smallest.rows:
                smallest = component
        if smallest is not None and total < TOO_FEW * limit:
            yield smallest

    def _count(self, components: Sequence[LinkedDocuments]) -> Iterator[LinkedDocuments]:
        """The components after the rows of their documents are counted, some at a time."""
        for start in range(0, len(components), CHUNK):
            part = components[start : start + CHUNK]
            rows = self._count_rows([document_id for component in part for document_id in component.new])
            for component in part:
                component.counts = {document_id: rows.get(document_id, 0) for document_id in component.new}
                yield component

    def _count_rows(self, document_ids: Sequence[str]) -> dict[str, int]:
        counts: dict[str, int] = {}
        for made in self.make_rows(self.corpus.representatives(document_ids)):
            rows = numpy.bincount(made.index["document"], minlength=len(made.ids))
            counts.update(zip(made.ids, rows.tolist(), strict=True))
        return counts

    def make_rows(self, members: Sequence[Member]) -> Iterator[MadeRows]:
        """Make the rows of documents, a chunk at a time."""
        chunks = [members[start : start + CHUNK] for start in range(0, len(members), CHUNK)]
        running = []
        for chunk in chunks:
            running.append(self.workers.submit(make_segment, read_members(self.store, chunk)))
            if len(running) >= MAX_AHEAD:
                yield running.pop(0)()
        for result in running:
            yield result()


def _assignments(component: LinkedDocuments, drawn: Container[str], golden: Collection[str]) -> list[Assignment]:
    """Golden documents are held out, with all new documents that are near-duplicates of them. They do not count towards a limit."""
    is_drawn = component.component_id in drawn
    side = is_drawn if component.known_side is None else component.known_side
    side = side or any(key in golden for key in component.new)
    counts = component.counts if is_drawn else {}
    return [Assignment(key, component.component_id, side, counts.get(key, 0)) for key in component.new]


@dataclass
class HeldOut:
    """The held-out rows, each answer once. `counted_rows` are those that count towards the specialist's limit."""

    chunks: list[MadeRows] = field(default_factory=list)
    kept: list[Mask] = field(default_factory=list)
    skipped: list[dict[str, SkippedCount]] = field(default_factory=list)
    boilerplate_rows: int = 0
    counted_rows: int = 0
    _seen: SeenAnswers = field(default_factory=SeenAnswers)

    def add(self, made: MadeRows, room: int) -> None:
        """Add the first rows with new answers, until all have `room`. The rows of golden documents are always added, and take no room."""
        first = self._seen.add(made.index["answer"])
        tasks = itertools.chain.from_iterable(read_column(table, "task") for table in made.tables)
        is_golden = numpy.array([task == Kind.TEST for task in tasks], numpy.bool_)
        taken = self.counted_rows + numpy.cumsum(first & ~is_golden)
        kept = first & (is_golden | (taken <= room))
        self.counted_rows += int((kept & ~is_golden).sum())
        self.chunks.append(made)
        self.kept.append(kept)
        limited = {HELD_OUT_LIMIT: count_removed(made, first, kept)}
        self.skipped.append({**made.skipped, **count_repeated(made, first), **limited})

    def answers(self) -> Iterator[str]:
        """The answers of all kept rows."""
        for made, kept in zip(self.chunks, self.kept, strict=True):
            for _, answer in made.read().select(kept.tolist()).answers():
                yield answer

    @property
    def letters(self) -> int:
        """The characters that the kept rows teach."""
        return sum(count_letters(made.places, kept) for made, kept in zip(self.chunks, self.kept, strict=True))

    def remove_shared(self, counts: dict[int, int], threshold: int) -> None:
        """Take out the rows that share a 13-gram with train."""
        for number, (made, kept) in enumerate(zip(self.chunks, self.kept, strict=True)):
            shared, common = (numpy.array(rows, numpy.bool_) for rows in shared_rows(made.read(), counts, threshold))
            self.boilerplate_rows += int((kept & common).sum())
            self.kept[number] = kept & ~shared
            self.skipped[number][OVERLAP] = count_removed(made, kept, self.kept[number])


def count_repeated(made: MadeRows, first: Mask) -> dict[str, SkippedCount]:
    """The rows that repeat the answer of another, which teaches their text. `first` marks the others."""
    rows = int((~first).sum())
    return {REPEATED: SkippedCount(_count_without(made, ~first, first), rows, 0)} if rows else {}


def count_removed(made: MadeRows, before: Mask, after: Mask) -> SkippedCount:
    """The rows that were removed, the characters that no other row teaches, and the documents without any rows left."""
    characters = count_letters(made.places, before) - count_letters(made.places, after)
    return SkippedCount(_count_without(made, before, after), int((before & ~after).sum()), characters)


def _count_without(made: MadeRows, before: Mask, after: Mask) -> int:
    """The documents that had rows before, and have none after."""
    had, have = (set(made.index["document"][mask].tolist()) for mask in (before, after))
    return len((had - have) & set(range(len(made.ids))))
