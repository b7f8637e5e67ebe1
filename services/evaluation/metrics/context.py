"""The context of a metric: everything that it knows apart from the rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from typing import TypeVar

from services.evaluation.ports import JudgeModel, MetricServices
from tailor.errors import FailedPrecondition, Reason
from tailor.metric_kinds import MetricParameters
from tailor.values import Criterion

P = TypeVar("P", bound=MetricParameters)


@dataclass(frozen=True)
class MetricContext:
    """The specialist's part of a measurement. `answers` are those of all models to the same rows, by model."""

    kind: str = ""
    parameters: MetricParameters = field(default_factory=MetricParameters)
    house_terms: Sequence[str] = ()
    guidelines: str = ""
    criteria: Sequence[Criterion] = ()
    judge: JudgeModel | None = None
    services: MetricServices | None = None
    answers: Mapping[str, Sequence[str | None]] = field(default_factory=dict)
    concurrency: int = 4

    def select(self, wanted: Sequence[bool]) -> "MetricContext":
        """The context of some of the rows."""
        chosen = {model: tuple(compress(answers, wanted)) for model, answers in self.answers.items()}
        return replace(self, answers=chosen)

    def parameters_as(self, kind: type[P]) -> P:
        """The parameters as those of one kind; its defaults if none are set."""
        if isinstance(self.parameters, kind):
            return self.parameters
        return kind.model_validate(self.parameters.model_dump(by_alias=True))

    def require_judge(self) -> JudgeModel:
        """Raises FailedPrecondition (NO_JUDGE) without one."""
        if self.judge is None:
            raise FailedPrecondition(
                Reason.NO_JUDGE,
                "The metric needs a judge model. Set TAILOR_JUDGE_BASE_URL and TAILOR_JUDGE_MODEL for evaluation.",
            )
        return self.judge
