"""The datasets whose train rows may occur in prompts."""

from collections.abc import Container, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from services.evaluation.ports import Batches, OpenTrainRows
from tailor.storage.ref import Ref


@dataclass(frozen=True)
class TrainData:
    """Manifests by the digest of their dataset. Rows of erased documents are to be left out."""

    open_rows: OpenTrainRows
    manifests: Mapping[str, Ref]
    erased: Container[str] = frozenset()

    @property
    def digests(self) -> list[str]:
        """The digests of the datasets, sorted."""
        return sorted(self.manifests)

    def open(self) -> AbstractContextManager[Batches]:
        """Fetch the train rows of all datasets."""
        return self.open_rows([self.manifests[digest] for digest in self.digests])
