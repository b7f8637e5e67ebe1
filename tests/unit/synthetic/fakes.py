"""Fakes in memory of everything around synthetic."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from services.synthetic.building.closed_book import closed_book_draw
from services.synthetic.building.ports import BuildCorpus, Corpora, Workers
from services.synthetic.building.segments import Context
from services.synthetic.building.workers import InlineWorkers
from services.synthetic.corpus import (
    NEAR_DUPLICATES,
    SEGMENT_DOCUMENTS,
    Assignment,
    Link,
    Member,
    NearDuplicateCount,
    SegmentKey,
    SegmentResult,
    Sketch,
    SplitSize,
    StoredFile,
    TextSketch,
)
from services.synthetic.domain import (
    BuildProgress,
    BuildResult,
    Dataset,
    Document,
    Judgement,
    KeptDraft,
    Kind,
    LastBuild,
    Origin,
    OriginKind,
    PairEvidence,
    Row,
    RowOrigin,
    Specialist,
    SyncCursor,
    Text,
    fingerprint,
)
from services.synthetic.filters import text_parts
from services.synthetic.handlers import Synthetic
from services.synthetic.near_duplicates.preparer import DocumentPreparer
from services.synthetic.parquet import read_column, read_table
from services.synthetic.ports import ExtraRows, Origins, Repository, Sketcher, Sketches, TokenCounter, Tokenizers
from tailor.datasets import ImportCount, SkippedCount
from tailor.storage.memory import MemoryStore
from tailor.values import DatasetKind, Labels, Selection

SPECIALIST = Specialist("reports", 1, "smollm2-135m-instruct", "lora")


class WordCounter(TokenCounter):
    """Every word is a token."""

    digest = "words"
    context_tokens = 2048

    def template_tokens(self, contents: Sequence[str], *, has_system: bool) -> int:
        return 4 * (len(contents) + has_system)

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def can_encode(self, messages: Sequence[tuple[str, str]]) -> bool:
        """The template cannot hold the word `unfit`."""
        return not any("unfit" in content for _, content in messages)


class OneTokenizer(Tokenizers):
    """Has the same counter for all bases."""

    def for_base(self, base: str) -> TokenCounter:
        return WordCounter()


@contextmanager
def inline_workers(context: Context, documents: int) -> Iterator[Workers]:
    """Work in this process, however many documents there are."""
    yield InlineWorkers(context)


class MemoryRepository(Repository):
    """`seconds` is its clock."""

    def __init__(self) -> None:
        self.documents: dict[str, tuple[int, float, Document]] = {}
        self.judgements: dict[str, tuple[int, float, Judgement]] = {}
        self.builds: dict[tuple[str, DatasetKind], dict[str, Any]] = {}
        self.drafts: dict[str, KeptDraft] = {}
        self.forgotten_after: list[int] = []
        self.datasets: dict[tuple[str, str], Dataset] = {}
        self.files: dict[tuple[str, str], tuple[StoredFile, ...]] = {}
        self.published: list[str] = []
        self.sketches: dict[str, Sketch] = {}
        self.arrivals: dict[str, int] = {}
        self.assignments: dict[tuple[str, str], Assignment] = {}
        self.segments: dict[tuple[str, int], SegmentResult] = {}
        self.answers: dict[str, BuildResult] = {}
        self.progress_calls = 0
        self.read: dict[str, SyncCursor] = {}
        self.locked: set[str] = set()
        self.position = 0
        self.seconds = 0.0

    def keep_document(self, document: Document) -> bool:
        known = self.documents.get(document.document_id)
        if known is not None and known[2].sequence >= document.sequence:
            return False
        self.position += 1
        self.documents[document.document_id] = (self.position, self.seconds, document)
        return True

    def unknown_documents(self, documents: Sequence[Document]) -> list[Document]:
        known = {key: document.sequence for key, (_, _, document) in self.documents.items()}
        return [document for document in documents if known.get(document.document_id, -1) < document.sequence]

    def newest_position(self) -> int:
        return self.position

    def keep_judgement(self, judgement: Judgement) -> bool:
        self.position += 1
        return (
            self.judgements.setdefault(judgement.judgement_id, (self.position, self.seconds, judgement))[2] is judgement
        )

    def retract_judgement(self, judgement: Judgement) -> None:
        position, seconds, _ = self.judgements.get(judgement.judgement_id, (self.position + 1, self.seconds, judgement))
        self.position = max(self.position, position)
        self.judgements[judgement.judgement_id] = (position, seconds, judgement)

    def keep_draft(self, draft: KeptDraft) -> None:
        known = self.drafts.get(draft.draft_id)
        if known is None or not known.saved:
            self.drafts[draft.draft_id] = draft

    def kept_drafts(self, draft_ids: Sequence[str]) -> list[KeptDraft]:
        return [self.drafts[key] for key in draft_ids if key in self.drafts]

    def is_wanted(self, draft_id: str) -> bool:
        judged = any(draft_id in judgement.ranking for _, _, judgement in self.judgements.values())
        return judged or any(document.draft_id == draft_id for _, _, document in self.documents.values())

    def forget_drafts(self, days: int) -> None:
        self.forgotten_after.append(days)

    def sync_cursor(self, specialist: str) -> SyncCursor:
        return self.read.get(specialist, SyncCursor())

    def set_sync_cursor(self, specialist: str, filled: SyncCursor) -> None:
        self.read[specialist] = filled

    def _items(self, specialist: Specialist, kind: DatasetKind) -> list[tuple[int, float]]:
        chosen = [(p, s, d) for p, s, d in self.documents.values() if specialist.selection.admits(d.labels)]
        if kind is DatasetKind.SFT:
            return [(p, s) for p, s, _ in chosen]
        ranked = [
            (p, s) for p, s, j in self.judgements.values() if j.specialist == specialist.name and len(j.ranking) > 1
        ]
        return ranked + [(p, s) for p, s, d in chosen if d.draft_id]

    def progress(self, specialist: Specialist, kind: DatasetKind) -> BuildProgress:
        items, build = self._items(specialist, kind), self.builds.get((specialist.name, kind), {})
        built_at = build.get("built_at")
        return BuildProgress(
            newest_position=max((position for position, _ in items), default=0),
            new_items=sum(position > build.get("built_position", 0) for position, _ in items),
            seconds_since_new=self.seconds - max(second for _, second in items) if items else None,
            seconds_since_build=None if built_at is None else self.seconds - built_at,
            tried_position=build.get("tried_position", 0),
        )

    def last_build(self, specialist: str, kind: DatasetKind) -> LastBuild:
        build = self.builds.get((specialist, kind), {})
        dataset = self.datasets.get((specialist, str(build.get("digest"))))
        return LastBuild(self.position, str(build.get("fingerprint", "")), dataset)

    def pair_evidence(self, specialist: Specialist) -> PairEvidence:
        own = [j for _, _, j in self.judgements.values() if j.specialist == specialist.name]
        judgements = tuple(sorted(own, key=lambda judgement: judgement.judgement_id))
        drafts = {k: d for k, d in self.drafts.items() if d.saved and d.specialist == specialist.name}
        chosen = [d for _, _, d in self.documents.values() if specialist.selection.admits(d.labels)]
        finished = (d for d in chosen if d.kind is Kind.DELIVERABLE and d.draft_id in drafts)
        ordered = tuple(sorted(finished, key=lambda document: document.document_id))
        return PairEvidence(judgements, drafts, ordered)

    def sides(self, specialist: str, document_ids: Sequence[str]) -> dict[str, bool]:
        known = {key: self.assignments.get((specialist, key)) for key in document_ids}
        return {key: assignment.held_out for key, assignment in known.items() if assignment is not None}

    def document(self, document_id: str) -> Document | None:
        return self.documents[document_id][2] if document_id in self.documents else None

    def draw_documents(self, specialist: Specialist, limit: int, *, new_only: bool = False) -> list[Document]:
        assert not new_only
        documents = [d for _, _, d in self.documents.values() if specialist.selection.admits(d.labels)]
        return sorted(documents, key=lambda d: fingerprint(d.document_id))[:limit]

    @contextmanager
    def building(self, specialist: str) -> Iterator[bool]:
        is_free = specialist not in self.locked
        self.locked.add(specialist)
        try:
            yield is_free
        finally:
            if is_free:
                self.locked.discard(specialist)

    def mark_tried(self, specialist: str, kind: DatasetKind, position: int) -> None:
        self.builds.setdefault((specialist, kind), {})["tried_position"] = position

    def finish(self, dataset: Dataset, files: Sequence[StoredFile], *, position: int, fingerprint: str) -> bool:
        key = (dataset.specialist, dataset.digest)
        created = key not in self.datasets
        self.datasets[key] = dataset
        if created:
            self.files[key] = tuple(files)
            self.published.append(dataset.digest)
        self.builds[dataset.specialist, dataset.kind] = {
            "built_position": position,
            "tried_position": position,
            "fingerprint": fingerprint,
            "digest": dataset.digest,
            "built_at": self.seconds,
        }
        return created

    def answer(self, request_id: str) -> BuildResult | None:
        return self.answers.get(request_id)

    def keep_answer(self, request_id: str, result: BuildResult) -> None:
        self.answers.setdefault(request_id, result)

    def listed_keys(self) -> set[str]:
        """Keys of the files of datasets and of stored segments."""
        keys = {stored.file.ref.key for part in self.files.values() for stored in part}
        return keys.union(*(result.keys for result in self.segments.values()))


@dataclass
class MemorySketches(Sketches):
    """Texts with equal first bands are near-duplicates."""

    repository: MemoryRepository

    @contextmanager
    def preparing(self) -> Iterator[bool]:
        yield True

    def missing(self, selection: Selection, limit: int) -> list[Document]:
        chosen = [d for _, _, d in self.repository.documents.values() if selection.admits(d.labels)]
        known = self.repository.sketches
        return [d for d in chosen if d.document_id not in known or known[d.document_id].document.text != d.text][:limit]

    def retry_unreadable(self, selection: Selection) -> None:
        sketches = self.repository.sketches
        for key in [key for key, sketch in sketches.items() if sketch.whole is None]:
            if selection.admits(sketches[key].document.labels):
                del sketches[key]

    def keep(self, sketches: Sequence[Sketch]) -> None:
        for sketch in sketches:
            key = sketch.document.document_id
            self.repository.sketches[key] = sketch
            self.repository.arrivals.setdefault(key, len(self.repository.arrivals))

    def count(self, selection: Selection) -> NearDuplicateCount:
        raise NotImplementedError


class WordSketcher(Sketcher):
    """Texts with the same third word are near-duplicates, and so are paragraphs with the same first three words."""

    def sketch(self, document: Document, text: Text) -> Sketch:
        words = f"{text.prompt or ''}\n{text.text}".split()
        passages = [part for part in text.text.split("\n\n") if len(part.split()) > 5]
        return Sketch(
            document,
            self._sketch(words[2] if len(words) > 2 else ""),
            tuple(self._sketch(" ".join(part.split()[:3])) for part in passages),
            len(text.text),
            len("".join(text.text.split())),
            tuple(sorted(text_parts(text.text))),
            seconds=0.5,
        )

    @staticmethod
    def _sketch(word: str) -> TextSketch:
        return TextSketch(word.encode(), (int(fingerprint(word)[:12], 16),), 1.0)


class AdmittedOrigins(Origins):
    """Every source and publisher is admitted."""

    def admit_first(self, specialist: Specialist) -> None:
        """Do nothing."""

    def list(self, specialist: Specialist) -> list[Origin]:
        return []

    def admit(self, specialist: Specialist, kind: OriginKind, name: str, admitted_by: str) -> bool:
        return False


@dataclass
class MemoryCorpora(Corpora):
    """The documents of a repository in memory."""

    repository: MemoryRepository

    @contextmanager
    def open(self, specialist: Specialist) -> Iterator[BuildCorpus]:
        yield MemoryCorpus(self.repository, specialist)


@dataclass
class MemoryCorpus(BuildCorpus):
    """Reads the repository again for every question."""

    repository: MemoryRepository
    specialist: Specialist
    repeated: set[int] = field(default_factory=set)
    missed: set[str] = field(default_factory=set)

    def _reasons(self) -> dict[str, str]:
        reasons: dict[str, str] = {}
        clusters: set[int] = set()
        taken: dict[str, int] = {}
        for key in sorted(
            self.repository.sketches, key=lambda key: (not self._is_golden(key), self.repository.arrivals[key])
        ):
            known, sketch = self.repository.documents.get(key), self.repository.sketches[key]
            if known is None or not self.specialist.selection.admits(known[2].labels):
                continue
            reason = self._reason(known[2], sketch)
            if not reason and sketch.whole is not None:
                is_copy = sketch.whole.bands[0] in clusters and not self._is_golden(key)
                reason = NEAR_DUPLICATES if is_copy else ""
                clusters.add(sketch.whole.bands[0])
            reasons[key] = reason
        limit = self.specialist.filters.max_source_documents
        candidates = (key for key, reason in reasons.items() if not reason and not self._is_golden(key))
        for key in sorted(candidates, key=lambda k: fingerprint("source", k)):
            source = self.repository.documents[key][2].labels.source
            taken[source] = taken.get(source, 0) + 1
            reasons[key] = "source" if limit and taken[source] > limit else ""
        return {key: reasons[key] for key in sorted(reasons, key=self.repository.arrivals.__getitem__)}

    def _is_golden(self, key: str) -> bool:
        known = self.repository.documents.get(key)
        return known is not None and known[2].kind is Kind.TEST

    def golden(self, document_ids: Sequence[str]) -> set[str]:
        return {key for key in document_ids if self._is_golden(key)}

    def _reason(self, document: Document, sketch: Sketch) -> str:
        filters = self.specialist.filters
        if sketch.whole is None:
            return "unreadable"
        if document.kind is Kind.TEST:
            return ""
        if filters.languages and document.language not in filters.languages:
            return "language"
        too_long = filters.max_chars and sketch.characters > filters.max_chars
        return "length" if too_long or sketch.characters < filters.min_chars else ""

    def _ids(self, *reasons: str) -> list[str]:
        return [key for key, reason in self._reasons().items() if reason in reasons]

    def documents(self) -> int:
        return len(self._ids(""))

    def skipped(self) -> dict[str, SkippedCount]:
        counts: dict[str, SkippedCount] = {}
        for key, reason in self._reasons().items():
            known, letters = counts.get(reason, SkippedCount()), self.repository.sketches[key].letters
            counts[reason] = SkippedCount(known.documents + 1, 0, known.characters + letters)
        return {reason: count for reason, count in counts.items() if reason}

    def letters(self) -> int:
        return sum(self.repository.sketches[key].letters for key in self._ids(""))

    def train_letters(self) -> tuple[int, int]:
        letters = [member.letters for key in self.segments() for member in self.members(key.number)]
        return max(letters, default=0), sum(letters)

    def intake_seconds(self) -> float:
        return sum(self.repository.sketches[key].seconds for key in self._reasons())

    def repeated_parts(self, documents: int) -> list[int]:
        counts: dict[int, int] = {}
        for key in self._ids(""):
            for part in self.repository.sketches[key].parts:
                counts[part] = counts.get(part, 0) + 1
        self.repeated = {part for part, count in counts.items() if documents and count >= documents}
        return sorted(self.repeated)

    def unassigned(self) -> list[str]:
        known = self.repository.assignments
        return [key for key in self._ids("", NEAR_DUPLICATES) if (self.specialist.name, key) not in known]

    def links(self, boilerplate_documents: int) -> Iterator[Link]:
        clusters: dict[tuple[bool, int], list[str]] = {}
        for key in self._ids("", NEAR_DUPLICATES):
            sketch = self.repository.sketches[key]
            for part in (sketch.whole, *sketch.passages):
                if part is not None:
                    clusters.setdefault((part is sketch.whole, part.bands[0]), []).append(key)
        for number, ((is_whole, _), keys) in enumerate(sorted(clusters.items())):
            if is_whole or len(set(keys)) < boilerplate_documents:
                for key in sorted(set(keys)):
                    known = self.repository.assignments.get((self.specialist.name, key))
                    yield Link(number, key, known.component_id, known.held_out) if known else Link(number, key)

    def assign(self, assignments: Iterable[Assignment]) -> None:
        for assignment in assignments:
            self.repository.assignments.setdefault((self.specialist.name, assignment.document_id), assignment)

    def mark_missed(self, document_ids: Sequence[str]) -> None:
        self.missed.update(document_ids)

    def closed_book_draw(self, rank: int) -> int | None:
        draws = sorted(map(closed_book_draw, self._on_side(is_held_out=False)))
        return draws[rank] if rank < len(draws) else None

    def split_size(self) -> SplitSize:
        mine = [a for (name, _), a in self.repository.assignments.items() if name == self.specialist.name]
        rows = [assignment.rows for assignment in mine if assignment.held_out]
        return SplitSize(len(mine), sum(count > 0 for count in rows), sum(rows))

    def representatives(self, document_ids: Sequence[str]) -> list[Member]:
        return [self._member(key) for key in self._ids("") if key in set(document_ids)]

    def held_out(self) -> list[Member]:
        return [self._member(key) for key in self._on_side(is_held_out=True)]

    def held_out_digest(self) -> str:
        return self._digest(self._on_side(is_held_out=True))

    def segments(self) -> list[SegmentKey]:
        numbers: dict[int, list[str]] = {}
        for key in self._on_side(is_held_out=False):
            numbers.setdefault(self.repository.arrivals[key] // SEGMENT_DOCUMENTS, []).append(key)
        return [SegmentKey(number, self._digest(keys), len(keys)) for number, keys in sorted(numbers.items())]

    def members(self, segment: int) -> list[Member]:
        keys = self._on_side(is_held_out=False)
        return [self._member(key) for key in keys if self.repository.arrivals[key] // SEGMENT_DOCUMENTS == segment]

    def sources(self, document_ids: Sequence[str]) -> dict[str, str]:
        known = self.repository.documents
        return {key: known[key][2].digest for key in document_ids if key in known}

    def segment_of(self, document_ids: Sequence[str]) -> dict[str, int]:
        known = self.repository.arrivals
        return {key: known[key] // SEGMENT_DOCUMENTS for key in document_ids if key in known}

    def sides(self, document_ids: Sequence[str]) -> dict[str, bool]:
        return self.repository.sides(self.specialist.name, document_ids)

    def stored_segments(self) -> dict[int, str]:
        mine = ((number, r) for (name, number), r in self.repository.segments.items() if name == self.specialist.name)
        return {number: result.inputs for number, result in mine}

    def segment_result(self, segment: int) -> SegmentResult | None:
        return self.repository.segments.get((self.specialist.name, segment))

    def keep_segment(self, result: SegmentResult) -> list[str]:
        old = self.repository.segments.get((self.specialist.name, result.number))
        self.repository.segments[self.specialist.name, result.number] = result
        listed = self.repository.listed_keys()
        return [key for key in (old.keys if old else ()) if key not in listed]

    def record_files(self, keys: Sequence[str]) -> None:
        del keys

    def forget_segments(self, numbers: Sequence[int]) -> list[str]:
        name = self.specialist.name
        for key in [key for key in self.repository.segments if key[0] == name and key[1] not in numbers]:
            del self.repository.segments[key]
        return []

    def _on_side(self, *, is_held_out: bool) -> list[str]:
        known = self.repository.assignments
        return [
            key
            for key in self._ids("")
            if (self.specialist.name, key) in known
            and (known[self.specialist.name, key].held_out or self._is_golden(key)) == is_held_out
        ]

    def _digest(self, keys: Sequence[str]) -> str:
        documents = self.repository.documents
        parts = ((key, documents[key][2].text.sha256, documents[key][2].labels, key in self.missed) for key in keys)
        return fingerprint(*parts, sorted(self.repeated))

    def _member(self, key: str) -> Member:
        document = self.repository.documents[key][2]
        draft = self.repository.drafts.get(document.draft_id) if document.kind is Kind.DELIVERABLE else None
        saved = draft if draft and draft.saved else None
        return Member(document, self.repository.sketches[key].letters, saved, key in self.missed, self._digest([key]))


def report(topic: str) -> str:
    """A report whose sections are long enough to learn from. Two reports share no run of 13 words."""
    body = f"The {topic} were counted twice in 2024 and 17 {topic} were found in places that nobody had checked before."
    return f"# Report: {topic} handling\n\n## Position\n\n{body} First.\n\n## Remedy\n\n1. {body} Second.\n2. Count {topic}."


@dataclass(frozen=True)
class ListedRows(ExtraRows):
    """Extra rows from a list."""

    listed: list[Row]

    def rows(self, specialist: Specialist, on_unreadable: Callable[[int], None] = lambda rows: None) -> Iterator[Row]:
        yield from sorted(self.listed, key=lambda row: row.row_id)

    def fingerprint(self, specialist: Specialist) -> str:
        return fingerprint(*(row.row_id for row in self.listed))

    def origin(self, specialist: Specialist) -> RowOrigin:
        return RowOrigin((ImportCount("chat", "MIT", 30, "chat.jsonl"), ImportCount("other", "MIT", 100)), 70)


def put_document(
    store: MemoryStore, number: int, *, text: str = "", prompt: str | None = None, labels: Labels | None = None
) -> Document:
    """Put a document's text into the corpus."""
    key = f"doc_{number:032d}"
    data = json.dumps({"prompt": prompt, "text": text or report(f"topic{number}")}).encode()
    ref = store.put("corpus", f"documents/{key}-{hash(data)}", data)
    kind = Kind.EXAMPLE if prompt else Kind.DOCUMENT
    return Document(key, 1, f"digest{number}", kind, labels or Labels("wiki", "risk", "internal"), ref)


@dataclass(frozen=True)
class FakeSynthetic(Synthetic):
    """The collaborators, typed as the fakes that they are."""

    repository: MemoryRepository
    store: MemoryStore

    def rows(self, digest: str, split: str) -> list[dict[str, Any]]:
        """The stored rows of a split."""
        return [row for key in self.keys(digest, split) for row in read_rows(self.store, key)]

    def keys(self, digest: str, split: str) -> list[str]:
        """The keys of a split's files."""
        return [file["key"] for file in self.manifest(digest)["splits"][split]["files"]]

    def manifest(self, digest: str) -> dict[str, Any]:
        """A stored manifest."""
        return dict(json.loads(self.store.read("datasets", f"{digest}/manifest.json")))

    def documents(self, digest: str) -> set[str]:
        """The documents that a dataset's sources name."""
        keys = [file["key"] for file in self.manifest(digest)["sources"]["files"]]
        return {key for name in keys for key in read_column(self.store.read("datasets", name), "document_id")}


def read_rows(store: MemoryStore, key: str) -> list[dict[str, Any]]:
    """The rows of a file, as dictionaries."""
    table = read_table(store.read("datasets", key))
    names = ("row_id", "task", "document_ids", "messages", "made_by", "tokens", "grounding", "places", "key_insights")
    columns = [table.column(name) for name in names]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def make_app(**changes: Any) -> FakeSynthetic:
    """Handlers over fakes, with one specialist."""
    store = changes.pop("store", None) or MemoryStore()
    repository = changes.pop("repository", None) or MemoryRepository()
    values: dict[str, Any] = {
        "repository": repository,
        "origins": AdmittedOrigins(),
        "corpora": MemoryCorpora(repository),
        "store": store,
        "tokenizers": OneTokenizer(),
        "preparer": DocumentPreparer(MemorySketches(repository), WordSketcher(), store),
        "list_documents": lambda name, changed_since: [],
        "start_workers": inline_workers,
        "specialists": {SPECIALIST.name: SPECIALIST},
        "sleep": lambda seconds: None,
    }
    return FakeSynthetic(**(values | changes))
