"""The judge model in an evaluation in which it may not judge."""

from collections.abc import Mapping, Sequence
from typing import Any

from services.evaluation.ports import JudgeModel
from tailor.errors import FailedPrecondition, Reason


class RefusedJudge(JudgeModel):
    """Judges nothing: no model judges its own answers."""

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    @property
    def tokens(self) -> int:
        return 0

    def ask(
        self, messages: Sequence[tuple[str, str]], schema: Mapping[str, Any], max_tokens: int
    ) -> Mapping[str, Any] | None:
        raise FailedPrecondition(
            Reason.JUDGE_IS_CANDIDATE,
            "The judge model is the candidate, or the specialist that it would serve. Name another model in TAILOR_JUDGE_MODEL.",
        )
