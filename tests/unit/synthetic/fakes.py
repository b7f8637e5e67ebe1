"""Fakes in memory of everything around synthetic."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from services.synthetic.domain import (
    Assignment,
    BuildProgress,
    BuildResult,
    CorpusSnapshot,
    Dataset,
    Document,
    Judgement,
    KeptDraft,
    Kind,
    PairRow,
    Row,
    RowLimits,
    Specialist,
    Split,
    TeacherAnswer,
    find_ranked_adapter,
)
from services.synthetic.handlers import Synthetic
from services.synthetic.ports import NearDuplicates, Repository, SplitWriter
from tailor.storage.memory import MemoryStore
from tailor.words import DatasetKind, Labels

SPECIALIST = Specialist("reports", 1, "smollm2-135m-instruct", "lora")


class MemoryRepository(Repository):
    """`seconds` is its clock."""

    def __init__(self) -> None:
        self.documents: dict[str, tuple[int, float, Document]] = {}
        self.judgements: dict[str, tuple[int, float, Judgement]] = {}
        self.builds: dict[tuple[str, DatasetKind], dict[str, Any]] = {}
        self.drafts: dict[str, KeptDraft] = {}
        self.forgotten_after: list[int] = []
        self.datasets: dict[tuple[str, str], Dataset] = {}
        self.published: list[str] = []
        self.clusters: dict[str, Assignment] = {}
        self.answers: dict[str, BuildResult] = {}
        self.teacher_answers: dict[str, TeacherAnswer] = {}
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
        judged = any(draft_id in judgement.ranking for _, _, judgement in self.judgements.values())
        return judged or any(document.draft_id == draft_id for _, _, document in self.documents.values())

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

    def snapshot(self, specialist: Specialist, kind: DatasetKind) -> CorpusSnapshot:
        chosen = [d for _, _, d in self.documents.values() if specialist.selection.admits(d.labels)]
        build = self.builds.get((specialist.name, kind), {})
        dataset = self.datasets.get((specialist.name, str(build.get("digest"))))
        ordered = tuple(sorted(chosen, key=lambda d: d.document_id))
        positions = [(p, j) for p, _, j in self.judgements.values() if j.specialist == specialist.name]
        newest_first = [j for _, j in sorted(positions, key=lambda entry: -entry[0])]
        judgements = tuple(sorted(newest_first, key=lambda judgement: judgement.judgement_id))
        drafts = {k: d for k, d in self.drafts.items() if d.saved and d.specialist == specialist.name}
        fingerprint, ranked = str(build.get("fingerprint", "")), find_ranked_adapter(newest_first, drafts)
        return CorpusSnapshot(ordered, self.position, fingerprint, dataset, judgements, drafts, ranked)

    def document(self, document_id: str) -> Document | None:
        return self.documents[document_id][2] if document_id in self.documents else None

    def newest(self, specialist: Specialist, limit: int) -> list[Document]:
        ordered = sorted(self.documents.values(), key=lambda entry: -entry[0])
        return [d for _, _, d in ordered if specialist.selection.admits(d.labels)][:limit]

    @contextmanager
    def building(self, specialist: str) -> Iterator[bool]:
        is_free = specialist not in self.locked
        self.locked.add(specialist)
        try:
            yield is_free
        finally:
            if is_free:
                self.locked.discard(specialist)

    def assignments(self, document_ids: Sequence[str]) -> dict[str, Assignment]:
        return {key: self.clusters[key] for key in document_ids if key in self.clusters}

    def assign(self, assignments: Iterable[Assignment]) -> None:
        for assignment in assignments:
            self.clusters.setdefault(assignment.document_id, assignment)

    def mark_tried(self, specialist: str, kind: DatasetKind, position: int) -> None:
        self.builds.setdefault((specialist, kind), {})["tried_position"] = position

    def finish(self, dataset: Dataset, *, position: int, fingerprint: str) -> bool:
        key = (dataset.specialist, dataset.digest)
        created = key not in self.datasets
        if created:
            self.datasets[key] = dataset
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

    def teacher_answer(self, key: str) -> TeacherAnswer | None:
        return self.teacher_answers.get(key)

    def keep_teacher_answer(self, key: str, answer: TeacherAnswer, document_id: str) -> None:
        self.teacher_answers.setdefault(key, answer)


class JsonWriter(SplitWriter):
    """Collects the rows that it writes."""

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


class ByThirdWord(NearDuplicates):
    """Texts with the same third word are near-duplicates."""

    def groups(self, texts: Mapping[str, str]) -> list[frozenset[str]]:
        groups: dict[str, set[str]] = {}
        for key, text in texts.items():
            groups.setdefault(text.split()[2], set()).add(key)
        return [frozenset(group) for group in groups.values()]


def report(topic: str) -> str:
    """A report whose sections are long enough to learn from."""
    body = f"The {topic} were counted twice in 2024 and 17 of them were found in places that nobody had checked before."
    return f"# Report: {topic} handling\n\n## Position\n\n{body} First.\n\n## Remedy\n\n1. {body} Second.\n2. Count {topic}."


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
    writer: JsonWriter


def make_app(**changes: Any) -> FakeSynthetic:
    """Handlers over fakes, with one specialist."""
    store = MemoryStore()
    values: dict[str, Any] = {
        "repository": MemoryRepository(),
        "store": store,
        "writer": JsonWriter(store),
        "near_duplicates": ByThirdWord(),
        "list_documents": lambda name: [],
        "limits": RowLimits(),
        "specialists": {SPECIALIST.name: SPECIALIST},
        "sleep": lambda seconds: None,
    }
    return FakeSynthetic(**(values | changes))
