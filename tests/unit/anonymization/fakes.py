"""In-memory twins of anonymization's ports."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from services.anonymization.domain import (
    NO_LABELS,
    Action,
    Anonymized,
    Change,
    DocumentText,
    Ingested,
    Resolved,
    TrueValue,
)
from services.anonymization.ports import (
    Anonymizer,
    AuditLog,
    Corpus,
    Issuer,
    QuarantinedTexts,
    Revealer,
    ReviewRecorder,
    Subjects,
    TrueValues,
)
from tailor.errors import InvalidArgument, NotFound, Reason
from tailor.storage.ref import Ref
from tailor.values import Labels

REF = Ref("s3://quarantine/documents/doc_1/1-ab", "ab", 10)
INGESTED = Ingested("doc_1", "sub_1", 1, "digest", 1, Labels("wiki", "risk", "internal"), REF, "md", "")


class MemoryVault(Issuer, Revealer):
    """Stores both directions in dictionaries. Several anonymizers may share it."""

    def __init__(self) -> None:
        self.issued: dict[tuple[str, str], str] = {}
        self.values: dict[tuple[str, str], str] = {}

    def issue(self, entity_type: str, key: str, value: str, propose: Callable[[int], str]) -> str:
        if (entity_type, key) not in self.issued:
            candidates = (propose(attempt) for attempt in range(200))
            surrogate = next(name for name in candidates if (entity_type, name) not in self.values and name != value)
            self.issued[entity_type, key] = surrogate
            self.values[entity_type, surrogate] = value
        return self.issued[entity_type, key]

    def reveal(self, entity_type: str, surrogate: str) -> str | None:
        return self.values.get((entity_type, surrogate))


class MemoryQuarantine(QuarantinedTexts):
    def __init__(self, text: DocumentText | None, damaged: bool = False) -> None:
        self.text = text
        self.damaged = damaged
        self.deleted: list[Ref] = []

    def read(self, ingested: Ingested) -> DocumentText:
        if self.damaged:
            raise InvalidArgument(Reason.UNREADABLE, "The object does not verify.")
        if self.text is None or self.deleted:
            raise NotFound(Reason.UNKNOWN_OBJECT, "There is no such object.")
        return self.text

    def delete(self, ref: Ref) -> None:
        self.deleted.append(ref)

    def delete_all(self, document_id: str) -> int:
        count = int(self.text is not None and not self.deleted)
        self.deleted.append(REF)
        return count


class MemoryCorpus(Corpus):
    def __init__(self) -> None:
        self.texts: list[DocumentText] = []
        self.deleted: list[Ref] = []

    def write(self, text: DocumentText) -> Ref:
        self.texts.append(text)
        return Ref("s3://corpus/documents/cd", "cd", len(text.encode()))

    def read(self, ref: Ref) -> DocumentText:
        if ref in self.deleted or not self.texts:
            raise NotFound(Reason.UNKNOWN_OBJECT, "There is no such object.")
        return self.texts[-1]

    def delete(self, ref: Ref) -> None:
        self.deleted.append(ref)


class MemoryRecorder(ReviewRecorder):
    """Remembers what was recorded of each document."""

    def __init__(self) -> None:
        self.recorded: dict[str, tuple[DocumentText, Anonymized, str]] = {}

    def record(self, ingested: Ingested, clean: DocumentText, result: Anonymized, language: str) -> None:
        self.recorded[ingested.document_id] = (clean, result, language)

    def forget(self, document_id: str) -> int:
        return int(self.recorded.pop(document_id, None) is not None)


class MemorySubjects(Subjects):
    """Resolves every subject to all documents."""

    def __init__(self) -> None:
        self.values: dict[str, frozenset[tuple[str, str]]] = {}
        self.suppressed: list[str] = []

    def keep(self, document_id: str, values: frozenset[tuple[str, str]]) -> None:
        self.values[document_id] = self.values.get(document_id, frozenset()) | values

    def forget(self, document_id: str) -> int:
        return len(self.values.pop(document_id, ()))

    def resolve(self, subject: str, *, dry_run: bool) -> Resolved:
        if not dry_run:
            self.suppressed.append(subject)
        return Resolved(tuple(sorted(self.values)), 1)

    def describe(self, subject: str) -> tuple[str, Resolved, bool]:
        return "PERSON", self.resolve(subject, dry_run=True), subject in self.suppressed

    def lift(self, subject: str) -> bool:
        if subject not in self.suppressed:
            return False
        self.suppressed.remove(subject)
        return True


class MemoryAuditLog(AuditLog):
    def __init__(self) -> None:
        self.calls: list[tuple[str, str, str, str]] = []

    def record(self, caller: str, entity_type: str, surrogate: str, purpose: str) -> None:
        self.calls.append((caller, entity_type, surrogate, purpose))

    def has(self, caller: str, entity_type: str, surrogate: str, purpose: str, seconds: float) -> bool:
        return (caller, entity_type, surrogate, purpose) in self.calls


class OneNameAnonymizer(Anonymizer):
    """Knows only the name Okafor, and replaces it by Ward."""

    def __init__(self) -> None:
        self.labels: list[Labels] = []
        self.passed: tuple[str, ...] = ()

    def anonymize(self, texts: tuple[str, ...], labels: Labels = NO_LABELS, passed: tuple[str, ...] = ()) -> Anonymized:
        self.labels.append(labels)
        self.passed = passed
        changes = tuple(
            tuple(
                Change(match.start(), match.end(), "PERSON", Action.SURROGATE, "Ward")
                for match in re.finditer("Okafor", text)
            )
            for text in texts
        )
        changed = tuple(text.replace("Okafor", "Ward") for text in texts)
        return Anonymized(changed, {"PERSON": sum(map(len, changes))}, changes, policy_digest="policy")


class UncoveredAnonymizer(OneNameAnonymizer):
    """Meets Swedish, which no detector covers."""

    def __init__(self, is_held: bool = True) -> None:
        super().__init__()
        self.is_held = is_held

    def anonymize(self, texts: tuple[str, ...], labels: Labels = NO_LABELS, passed: tuple[str, ...] = ()) -> Anonymized:
        if self.is_held:
            raise InvalidArgument(Reason.LANGUAGE_NOT_COVERED, "A passage is in the language `sv`.")
        return replace(super().anonymize(texts, labels, passed), rules_only_languages=("sv",))


class MemoryTrueValues(TrueValues):
    """Finds values as they are written. `documents` are the (type, value) pairs of each document."""

    def __init__(self, documents: Mapping[str, Sequence[tuple[str, str]]]) -> None:
        self.documents = documents

    def find(self, texts: Sequence[str]) -> frozenset[TrueValue]:
        pairs = {pair for values in self.documents.values() for pair in values}
        return frozenset(TrueValue(kind, ((kind, value),)) for kind, value in pairs if any(value in t for t in texts))

    def occurring(self, values: frozenset[TrueValue], document_ids: Sequence[str]) -> frozenset[TrueValue]:
        pairs = {pair for name in document_ids for pair in self.documents.get(name, ())}
        return frozenset(value for value in values if pairs.issuperset(value.surrogates))
