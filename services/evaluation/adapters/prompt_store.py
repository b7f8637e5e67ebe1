"""Optimised instructions in object storage, in the bucket of the reports."""

import json
from collections.abc import Sequence

from services.evaluation.ports import PromptStore
from tailor.storage.buckets import REPORTS
from tailor.storage.protocol import ObjectStore

FOLDER = "prompts"


class ObjectPrompts(PromptStore):
    """`prompts/<dataset digest>/<key>.json` in the bucket of reports."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def find(self, dataset_digest: str, key: str) -> str | None:
        name = _name(dataset_digest, key)
        if not self._store.exists(REPORTS, name):
            return None
        return str(json.loads(self._store.read(REPORTS, name))["instructions"])

    def save(self, dataset_digest: str, key: str, instructions: str) -> None:
        document = json.dumps({"instructions": instructions}, ensure_ascii=False)
        self._store.put(REPORTS, _name(dataset_digest, key), document.encode(), "application/json")

    def delete(self, datasets: Sequence[str]) -> int:
        keys = [key for digest in datasets for key in self._store.list_keys(REPORTS, f"{FOLDER}/{digest}/")]
        for key in keys:
            self._store.delete(REPORTS, key)
        return len(keys)


def _name(dataset_digest: str, key: str) -> str:
    return f"{FOLDER}/{dataset_digest}/{key}.json"
