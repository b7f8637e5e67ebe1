"""The Protocols of what evaluation needs from outside: adapters implement them, tests fake them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from services.evaluation.domain import (
    Adapter,
    Answer,
    AnsweredRow,
    HeldOutRow,
    HeldOutSet,
    LoadedCandidate,
    Score,
    Serving,
    SpecialistTerms,
)
from tailor.datasets import ClosedBookQuestion
from tailor.planted_secrets import PlantedSecret
from tailor.storage.ref import Ref
from tailor.values import SamplingDefaults


class Models(Protocol):
    """Inference. Methods block; they raise Unavailable while it does not answer and NotFound for a model that is not loaded."""

    def load(self, adapter_digest: str, manifest: Ref) -> LoadedCandidate:
        """Load a candidate and compare it with the trainer's probe scores. Idempotent."""
        ...

    def generate(self, model: str, messages: Sequence[tuple[str, str]], sampling: SamplingDefaults) -> Answer:
        """Generate an answer, with a fixed seed if it is drawn."""
        ...

    def score(self, model: str, messages: Sequence[tuple[str, str]], completion: str) -> Score:
        """Score an answer by its log-probability."""
        ...


class EvaluatedModel(Protocol):
    """A model that an evaluation measures: the base, the base with another prompt, an adapter, or an external model. Thread-safe.

    Methods block. They raise Unavailable while the model does not answer, NotFound if it must be prepared again, and FailedPrecondition if
    it cannot be measured. The evaluation then fails for the base, the incumbent and the candidate, and leaves out any other model.
    """

    @property
    def name(self) -> str:
        """Its name in the figures: `base`, `few_shot`, `prompt`, `external:NAME`, `incumbent` or `candidate`."""
        ...

    @property
    def key(self) -> str:
        """A cache key, at most 200 characters: what its results depend on, apart from rows and sampling."""
        ...

    @property
    def notes(self) -> Mapping[str, Any]:
        """Facts about its prompts for the report, as JSON, complete after the last row. `document_ids` names the documents in them."""
        return {}

    def prepare(self) -> None:
        """Load what it needs. Idempotent; called before the first row."""
        ...

    def answer(self, row: HeldOutRow, sampling: SamplingDefaults) -> Answer:
        """Answer the prompt of a row."""
        ...

    def score(self, row: HeldOutRow, completion: str) -> Score | None:
        """Score a completion of a row's prompt; None if the model has no log-probabilities."""
        ...


# The models of an evaluation: the base first, the candidate last; the incumbent if an adapter serves.
ListModels = Callable[[Adapter, SpecialistTerms, Serving | None, HeldOutSet], Sequence[EvaluatedModel]]


class JudgeModel(Protocol):
    """The model that compares and marks answers, and extracts insights. Thread-safe."""

    @property
    def name(self) -> str:
        """The model's name at its endpoint."""
        ...

    @property
    def tokens(self) -> int:
        """Tokens of all prompts and answers so far, as far as the endpoint reports them."""
        ...

    def ask(
        self, messages: Sequence[tuple[str, str]], schema: Mapping[str, Any], max_tokens: int
    ) -> Mapping[str, Any] | None:
        """An answer that matches a JSON schema, at temperature 0; None if the model gave no such answer. Blocks.

        Raises Unavailable while the endpoint does not answer, and FailedPrecondition (JUDGE_REFUSED) if it refuses every request.
        """
        ...


class MetricServices(Protocol):
    """The metric services of the company, by the names that evaluation's settings give them. Thread-safe."""

    def measure(
        self, service: str, metric: str, parameters: Mapping[str, Any], rows: Sequence[AnsweredRow]
    ) -> list[tuple[float, float] | None]:
        """A value and its weight for each row; None if the metric does not apply to it. Blocks.

        Raises FailedPrecondition (UNKNOWN_METRIC_SERVICE, METRIC_SERVICE_FAILED), and Unavailable while the service does not answer.
        """
        ...


class DatasetProbes(Protocol):
    """What the suites ask about a dataset, by the reference of its manifest. Methods block.

    They raise what the store raises, and FailedPrecondition (INVALID_DATASET, INVALID_MANIFEST) if the dataset is invalid.
    """

    def choose(self, manifests: Sequence[Ref]) -> Ref:
        """The first dataset of documents, or else the first dataset."""
        ...

    def train_prompts(self, manifest: Ref, limit: int) -> Sequence[tuple[tuple[str, str], ...]]:
        """The messages before the answers of at most `limit` train rows, always the same ones."""
        ...

    def planted_secrets(self, manifest: Ref) -> Sequence[PlantedSecret]:
        """The secrets that were planted in the dataset, and those of the operator. Raises InvalidArgument (INVALID_PLANTED_SECRET)."""
        ...

    def closed_book(self, manifest: Ref, limit: int) -> Sequence[ClosedBookQuestion]:
        """About `limit` questions at most, always the same ones; all those of a document, or none."""
        ...

    def count_true_values(self, manifest: Ref, texts: Sequence[str], known_texts: Sequence[str]) -> Mapping[str, int]:
        """Count, by type, the true values of the dataset's documents that occur in the texts and in no known text.

        Raises Unavailable while anonymization does not answer, and InvalidArgument (TOO_LONG).
        """
        ...


class TrainSplit(Protocol):
    """The train rows of a dataset, on this machine."""

    def batches(self) -> Iterator[Sequence[HeldOutRow]]:
        """All rows in the order of the files, one batch in memory; can be called again. Raises FailedPrecondition (INVALID_DATASET)."""
        ...


class HouseExamples(Protocol):
    """The train rows of stored datasets, which may occur in prompts as examples."""

    def open(self, manifest: Ref) -> AbstractContextManager[TrainSplit]:
        """Fetch the files of the train split; they are removed when the context ends. Blocks.

        Raises FailedPrecondition (INVALID_DATASET, INVALID_MANIFEST) if the dataset is invalid.
        """
        ...


class ChatEndpoint(Protocol):
    """An OpenAI-style endpoint and the model that it is asked for. Thread-safe."""

    @property
    def address(self) -> str:
        """The endpoint's URL, without any secret."""
        ...

    @property
    def model(self) -> str:
        """The model's name at the endpoint."""
        ...

    def complete(self, messages: Sequence[tuple[str, str]], sampling: SamplingDefaults) -> Answer:
        """Make one attempt; the caller retries. Blocks.

        Raises Unavailable or ResourceExhausted if another attempt may succeed, otherwise FailedPrecondition (EXTERNAL_KEY_REFUSED,
        EXTERNAL_QUOTA, UNKNOWN_EXTERNAL_MODEL, EXTERNAL_REFUSED).
        """
        ...
