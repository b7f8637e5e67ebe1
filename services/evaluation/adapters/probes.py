"""What the suites ask about a dataset: its train prompts, planted secrets, and true values of its documents."""

import hashlib
import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain

import grpc

from tailor.api.anonymization.v1 import anonymization_pb2, anonymization_pb2_grpc
from tailor.dataset_ids import read_columns, read_ids
from tailor.datasets import TRAIN, DatasetManifest
from tailor.planted_secrets import PlantedSecret, read_secrets
from tailor.rpc.channel import wire_errors
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref
from tailor.values import DatasetKind

COUNT_SECONDS = 1200
IDS_PER_MESSAGE = 1_000
CHARS_PER_MESSAGE = 100_000

Request = anonymization_pb2.CountTrueValuesRequest


class StoredProbes:
    """What the suites ask about a dataset, by the reference of its manifest. Methods block.

    They raise what the store raises, and FailedPrecondition (INVALID_DATASET, INVALID_MANIFEST) if the dataset is invalid. `planted` are
    the operator's own secrets, which are measured for every dataset.
    """

    def __init__(self, store: ObjectStore, anonymization: grpc.Channel, planted: Sequence[PlantedSecret] = ()) -> None:
        self._store = store
        self._stub = anonymization_pb2_grpc.AnonymizationServiceStub(anonymization)
        self._planted = tuple(planted)

    def choose(self, manifests: Sequence[Ref]) -> Ref:
        """The first dataset of documents, or else the first dataset."""
        kinds = ((manifest, self._manifest(manifest).kind) for manifest in manifests)
        return next((manifest for manifest, kind in kinds if kind is DatasetKind.SFT), manifests[0])

    def train_prompts(self, manifest: Ref, limit: int) -> list[tuple[tuple[str, str], ...]]:
        """The messages before the answers of at most `limit` train rows, always the same ones."""
        files = self._manifest(manifest).split(TRAIN).files
        columns = read_columns(self._store, files, ("row_id", "messages"))
        rows = chain.from_iterable(zip(*values, strict=True) for values in columns)
        chosen = heapq.nsmallest(limit, rows, key=lambda row: _rank(manifest, row[0]))
        return [_prompt(messages) for _, messages in chosen]

    def planted_secrets(self, manifest: Ref) -> tuple[PlantedSecret, ...]:
        """The secrets that were planted in the dataset, and those of the operator. Raises InvalidArgument (INVALID_PLANTED_SECRET)."""
        file = self._manifest(manifest).planted_secrets
        return self._planted if file is None else (*read_secrets(self._store.get(file.ref)), *self._planted)

    def count_true_values(self, manifest: Ref, texts: Sequence[str], known_texts: Sequence[str]) -> Mapping[str, int]:
        """Count, by type, the true values of the dataset's documents that occur in the texts and in no known text.

        Raises Unavailable while anonymization does not answer, and InvalidArgument (TOO_LONG).
        """
        ids = read_ids(self._store, self._manifest(manifest).sources, "document_id", IDS_PER_MESSAGE)
        with wire_errors("anonymization"):
            response = self._stub.CountTrueValues(_requests(texts, known_texts, ids), timeout=COUNT_SECONDS)
        return dict(response.counts)

    def _manifest(self, manifest: Ref) -> DatasetManifest:
        return DatasetManifest.parse(self._store.get(manifest))


def _requests(texts: Sequence[str], known_texts: Sequence[str], ids: Iterable[Sequence[str]]) -> Iterator[Request]:
    """All texts, then all ids, in messages of bounded size."""
    for part in _parts(texts):
        yield Request(texts=part)
    for part in _parts(known_texts):
        yield Request(known_texts=part)
    for batch in ids:
        yield Request(document_ids=batch)


def _parts(texts: Sequence[str]) -> Iterator[list[str]]:
    """The texts in order, of at most `CHARS_PER_MESSAGE` characters together; a longer one by itself."""
    part: list[str] = []
    size = 0
    for text in texts:
        if part and size + len(text) > CHARS_PER_MESSAGE:
            yield part
            part, size = [], 0
        part.append(text)
        size += len(text)
    if part:
        yield part


def _prompt(messages: Iterable[Mapping[str, str]]) -> tuple[tuple[str, str], ...]:
    """The messages before the answer. Rows of pairs have no answer among their messages."""
    pairs = [(message["role"], message["content"]) for message in messages]
    return tuple(pairs[:-1] if pairs[-1][0] == "assistant" else pairs)


def _rank(manifest: Ref, name: str) -> bytes:
    """The same order for the same dataset, and another one for the next, so that in time everything is asked."""
    return hashlib.sha256(f"{manifest.sha256} {name}".encode()).digest()
