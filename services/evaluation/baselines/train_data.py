"""The datasets whose train rows may occur in prompts."""

from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from services.evaluation.domain import HeldOutRow
from services.evaluation.ports import HouseExamples, TrainSplit
from tailor.storage.ref import Ref


@dataclass(frozen=True)
class TrainData:
    """Manifests by the digest of their dataset. Rows of erased documents are to be left out."""

    rows: HouseExamples
    manifests: Mapping[str, Ref]
    erased: Container[str] = frozenset()

    @property
    def digests(self) -> list[str]:
        """The digests of the datasets, sorted."""
        return sorted(self.manifests)

    @contextmanager
    def open(self) -> Iterator[TrainSplit]:
        """Fetch the train rows of all datasets; they are removed when the context ends. Blocks, and raises as `TrainRows.open`."""
        with ExitStack() as stack:
            splits = [stack.enter_context(self.rows.open(self.manifests[digest])) for digest in self.digests]
            yield _Splits(splits)


class _Splits(TrainSplit):
    def __init__(self, splits: Sequence[TrainSplit]) -> None:
        self._splits = splits

    def batches(self) -> Iterator[Sequence[HeldOutRow]]:
        for split in self._splits:
            yield from split.batches()
