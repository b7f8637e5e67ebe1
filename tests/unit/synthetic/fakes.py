"""Twins in memory of what synthetic needs."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from services.synthetic.domain import (
    Assignment,
    Built,
    Dataset,
    DatasetKind,
    Document,
    Judgement,
    KeptDraft,
    Kind,
    Labels,
    Lesson,
    Progress,
    Row,
    RowLimits,
    Snapshot,
    Specialist,
    Split,
    ranked_last,
)
from services.synthetic.handlers import Synthetic
from services.synthetic.judging import PairRow
from tailor.storage.memory import MemoryStore

SPECIALIST = Specialist("reports", 1, "smollm2-135m-instruct", "lora")


class MemoryRepository:
    """Satisfies `ports.Repository`; `seconds` is the clock."""

    def __init__(self) -> None:
        self.documents: dict[str, tuple[int, float, Document]] = {}
        self.judgements: dict[str, tuple[int, float, Judgement]] = {}
        self.builds: dict[tuple[str, DatasetKind], dict[str, object]] = {}
        self.drafts: dict[str, KeptDraft] = {}
        self.forgotten_after: list[int] = []
        self.datasets: dict[tuple[str, str], Dataset] = {}
        self.stated: list[str] = []
        self.clusters: dict[str, Assignment] = {}
        self.answers: dict[str, Built] = {}
        self.lessons: dict[str, Lesson] = {}
        self.filled: dict[str, int] = {}
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

    def keep_judgement(self, judgement: Judgement) -> bool:
        self.position += 1
        return (
            self.judgements.setdefault(judgement.judgement_id, (self.position, self.seconds, judgement))[2] is judgement
        )

    def keep_draft(self, draft: KeptDraft) -> None:
        known = self.drafts.get(draft.draft_id)
        if known is None or not known.saved:
            self.drafts[draft.draft_id] = draft

    def kept_drafts(self, draft_ids: Sequence[str]) -> list[KeptDraft]:
        return [self.drafts[key] for key in draft_ids if key in self.drafts]

    def is_wanted(self, draft_id: str) -> bool:
        judged = any(draft_id in one.ranking for _, _, one in self.judgements.values())
        return judged or any(one.draft_id == draft_id for _, _, one in self.documents.values())

    def forget_drafts(self, days: int) -> None:
        self.forgotten_after.append(days)

    def filled_revision(self, specialist: str) -> int:
        return self.filled.get(specialist, 0)

    def set_filled(self, specialist: str, revision: int) -> None:
        self.filled[specialist] = revision

    def _items(self, specialist: Specialist, kind: DatasetKind) -> list[tuple[int, float]]:
        chosen = [(p, s, d) for p, s, d in self.documents.values() if specialist.selection.admits(d.labels)]
        if kind is DatasetKind.SFT:
            return [(p, s) for p, s, _ in chosen]
        mine = [
            (p, s) for p, s, j in self.judgements.values() if j.specialist == specialist.name and len(j.ranking) > 1
        ]
        return mine + [(p, s) for p, s, d in chosen if d.draft_id]

    def progress(self, specialist: Specialist, kind: DatasetKind) -> Progress:
        items, build = self._items(specialist, kind), self.builds.get((specialist.name, kind), {})
        built_at = build.get("built_at")
        return Progress(
            newest_position=max((position for position, _ in items), default=0),
            new_items=sum(position > build.get("built_position", 0) for position, _ in items),
            seconds_since_new=self.seconds - max(second for _, second in items) if items else None,
            seconds_since_build=None if built_at is None else self.seconds - built_at,
            tried_position=build.get("tried_position", 0),
        )

    def snapshot(self, specialist: Specialist, kind: DatasetKind) -> Snapshot:
        chosen = [d for _, _, d in self.documents.values() if specialist.selection.admits(d.labels)]
        build = self.builds.get((specialist.name, kind), {})
        dataset = self.datasets.get((specialist.name, str(build.get("digest"))))
        ordered = tuple(sorted(chosen, key=lambda d: d.document_id))
        placed = [(place, one) for place, _, one in self.judgements.values() if one.specialist == specialist.name]
        mine = [one for _, one in sorted(placed, key=lambda entry: -entry[0])]
        judged = tuple(sorted(mine, key=lambda one: one.judgement_id))
        drafts = {k: d for k, d in self.drafts.items() if d.saved and d.specialist == specialist.name}
        fingerprint, ranked = str(build.get("fingerprint", "")), ranked_last(mine, drafts)
        return Snapshot(ordered, self.position, fingerprint, dataset, judged, drafts, ranked)

    def document(self, document_id: str) -> Document | None:
        return self.documents[document_id][2] if document_id in self.documents else None

    def newest(self, specialist: Specialist, limit: int) -> list[Document]:
        ordered = sorted(self.documents.values(), key=lambda entry: -entry[0])
        return [d for _, _, d in ordered if specialist.selection.admits(d.labels)][:limit]

    @contextmanager
    def building(self, specialist: str) -> Iterator[bool]:
        mine = specialist not in self.locked
        self.locked.add(specialist)
        try:
            yield mine
        finally:
            if mine:
                self.locked.discard(specialist)

    def assignments(self, document_ids: Sequence[str]) -> dict[str, Assignment]:
        return {key: self.clusters[key] for key in document_ids if key in self.clusters}

    def assign(self, assignments: Iterable[Assignment]) -> None:
        for one in assignments:
            self.clusters.setdefault(one.document_id, one)

    def mark_tried(self, specialist: str, kind: DatasetKind, position: int) -> None:
        self.builds.setdefault((specialist, kind), {})["tried_position"] = position

    def finish(self, dataset: Dataset, *, position: int, fingerprint: str) -> bool:
        key = (dataset.specialist, dataset.digest)
        created = key not in self.datasets
        if created:
            self.datasets[key] = dataset
            self.stated.append(dataset.digest)
        self.builds[dataset.specialist, dataset.kind] = {
            "built_position": position,
            "tried_position": position,
            "fingerprint": fingerprint,
            "digest": dataset.digest,
            "built_at": self.seconds,
        }
        return created

    def answer(self, request_id: str) -> Built | None:
        return self.answers.get(request_id)

    def keep_answer(self, request_id: str, built: Built) -> None:
        self.answers.setdefault(request_id, built)

    def lesson(self, key: str) -> Lesson | None:
        return self.lessons.get(key)

    def keep_lesson(self, key: str, lesson: Lesson, document_id: str) -> None:
        self.lessons.setdefault(key, lesson)


class JsonWriter:
    """Satisfies `ports.SplitWriter`."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.written: list[list[Row]] = []
        self.pairs: list[list[PairRow]] = []

    def write(self, rows: Sequence[Row]) -> Split:
        self.written.append(list(rows))
        data = json.dumps([row.row_id for row in rows]).encode()
        return Split(self.store.put("datasets", f"files/{len(data)}-{hash(data)}", data), len(rows))

    def write_pairs(self, rows: Sequence[PairRow]) -> Split:
        self.pairs.append(list(rows))
        data = json.dumps([row.row_id for row in rows]).encode()
        return Split(self.store.put("datasets", f"files/{len(data)}-{hash(data)}", data), len(rows))


class ByFirstWord:
    """Satisfies `ports.NearDuplicates`: texts whose third word is the same are near-duplicates."""

    def groups(self, texts: Mapping[str, str]) -> list[frozenset[str]]:
        found: dict[str, set[str]] = {}
        for key, text in texts.items():
            found.setdefault(text.split()[2], set()).add(key)
        return [frozenset(group) for group in found.values()]


def report(topic: str) -> str:
    """A report whose sections are long enough to learn from."""
    body = f"The {topic} were counted twice in 2024 and 17 of them were found where nobody had looked for them before."
    return f"# Report: {topic} handling\n\n## Position\n\n{body} First.\n\n## Remedy\n\n1. {body} Second.\n2. Count {topic}."


def put_document(
    store: MemoryStore, number: int, *, text: str = "", prompt: str | None = None, labels: Labels | None = None
) -> Document:
    """A document whose text is in the corpus."""
    key = f"doc_{number:032d}"
    data = json.dumps({"prompt": prompt, "text": text or report(f"topic{number}")}).encode()
    ref = store.put("corpus", f"documents/{key}-{hash(data)}", data)
    kind = Kind.EXAMPLE if prompt else Kind.DOCUMENT
    return Document(key, 1, f"digest{number}", kind, labels or Labels("wiki", "risk", "internal"), ref)


def make_app(**changes: object) -> Synthetic:
    """Handlers over twins, with one specialist."""
    store = MemoryStore()
    values: dict[str, object] = {
        "repository": MemoryRepository(),
        "store": store,
        "writer": JsonWriter(store),
        "near_duplicates": ByFirstWord(),
        "list_documents": lambda name: [],
        "limits": RowLimits(),
        "specialists": {SPECIALIST.name: SPECIALIST},
        "sleep": lambda seconds: None,
    }
    return Synthetic(**(values | changes))
