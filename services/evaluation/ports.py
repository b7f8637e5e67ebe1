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
from tailor.storage.ref import Ref
from tailor.values import SamplingDefaults

Messages = tuple[tuple[str, str], ...]


class Models(Protocol):
    """Inference. Methods block; they raise Unavailable while it does not answer and NotFound for a model that is not loaded."""

    def on_base(self, base: str) -> "Models":
        """The models of one base, by the same names; an empty one is that of the deployment that is called."""
        return self

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


# The train rows of datasets, by the references of their manifests: a function of all rows in the order of the files, one batch in memory,
# that can be called again. Fetches the files, which are removed when the context ends. Blocks. Raises FailedPrecondition (INVALID_DATASET,
# INVALID_MANIFEST) if a dataset is invalid.
Batches = Callable[[], Iterator[Sequence[HeldOutRow]]]
OpenTrainRows = Callable[[Sequence[Ref]], AbstractContextManager[Batches]]


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


class SuiteAsker(Protocol):
    """The models under evaluation, by their names in the evaluation. Methods block, and keep the order of what they are given."""

    def answer(self, model: str, prompts: Sequence[Messages], max_tokens: int) -> list[str]:
        """Generate an answer to each prompt."""
        ...

    def score(self, model: str, pairs: Sequence[tuple[Messages, str]]) -> list[Score]:
        """Score each completion of a prompt by its log-probability."""
        ...
