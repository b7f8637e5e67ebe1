"""Optimised prompts in object storage, in the bucket of the reports."""

import json
from dataclasses import asdict

from services.evaluation.domain import OptimizedPrompt
from tailor.storage.buckets import REPORTS
from tailor.storage.protocol import ObjectStore

FOLDER = "prompts/"


class PromptStore:
    """`prompts/<key>.json`. The prompts survive an interruption and serve later evaluations."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def find(self, key: str) -> OptimizedPrompt | None:
        name = f"{FOLDER}{key}.json"
        return self._read(name) if self._store.exists(REPORTS, name) else None

    def save(self, key: str, prompt: OptimizedPrompt) -> None:
        document = json.dumps(asdict(prompt), ensure_ascii=False)
        self._store.put(REPORTS, f"{FOLDER}{key}.json", document.encode(), "application/json")

    def delete(self, document_id: str) -> int:
        """Delete the prompts that were optimised on rows of this document. Returns their number."""
        names = [
            name for name in self._store.list_keys(REPORTS, FOLDER) if document_id in self._read(name).document_ids
        ]
        for name in names:
            self._store.delete(REPORTS, name)
        return len(names)

    def _read(self, name: str) -> OptimizedPrompt:
        document = json.loads(self._store.read(REPORTS, name))
        return OptimizedPrompt(document["instructions"], tuple(document["document_ids"]))
