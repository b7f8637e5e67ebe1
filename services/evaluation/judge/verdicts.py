"""What the judge model says of answers: marks by a rubric, and comparisons in both orders."""

from collections.abc import Mapping
from dataclasses import dataclass

from services.evaluation.judge.prompts import Request, Rules, pairwise_request, rubric_request
from services.evaluation.ports import JudgeModel

MAX_TOKENS = 300
WIN, TIE, LOSS = 1.0, 0.5, 0.0
# How the verdicts on the pair (ours, theirs) and on the pair (theirs, ours) read for ours.
IN_ORDER = {"first": WIN, "second": LOSS, "tie": TIE}
IN_REVERSE = {"first": LOSS, "second": WIN, "tie": TIE}


@dataclass(frozen=True)
class JudgeComparison:
    """1 if the first answer wins in both orders, 0 if it loses in both, otherwise 0.5. `flipped` means that the order decided."""

    outcome: float
    flipped: bool


def mark(judge: JudgeModel, request: Request, answer: str, rules: Rules) -> Mapping[str, int] | None:
    """Marks from 1 to 5 by criterion (Liu et al. 2023, "G-Eval"); None if the judge gave none. Blocks."""
    marks = judge.ask(*rubric_request(request, answer, rules), MAX_TOKENS)
    return None if marks is None else {name: int(value) for name, value in marks.items()}


def compare(judge: JudgeModel, request: Request, ours: str, theirs: str, rules: Rules) -> JudgeComparison | None:
    """Compare two answers in both orders, because judges prefer a position; None if the judge did not answer both. Blocks.

    Source: Zheng et al. 2023, "Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena", section 3.4: a win counts only in both orders.
    """
    if ours == theirs:
        return JudgeComparison(TIE, flipped=False)
    verdicts = [
        judge.ask(*pairwise_request(request, *pair, rules), MAX_TOKENS) for pair in ((ours, theirs), (theirs, ours))
    ]
    if verdicts[0] is None or verdicts[1] is None:
        return None
    first, second = IN_ORDER[verdicts[0]["better"]], IN_REVERSE[verdicts[1]["better"]]
    return JudgeComparison(first if first == second else TIE, flipped={first, second} == {WIN, LOSS})
