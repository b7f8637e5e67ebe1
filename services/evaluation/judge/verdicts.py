"""What the judge model says of answers: marks by a rubric, and comparisons in both orders."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.evaluation.judge.prompts import DEFAULT_CRITERIA, pairwise_request, rubric_request
from services.evaluation.ports import JudgeModel
from tailor.words import Criterion

MAX_TOKENS = 300
WIN, TIE, LOSS = 1.0, 0.5, 0.0
# How the verdicts on the pair (ours, theirs) and on the pair (theirs, ours) read for ours.
IN_ORDER = {"first": WIN, "second": LOSS, "tie": TIE}
IN_REVERSE = {"first": LOSS, "second": WIN, "tie": TIE}


@dataclass(frozen=True)
class Rules:
    """What the judge model judges by."""

    criteria: Sequence[Criterion] = DEFAULT_CRITERIA
    guidelines: str = ""


@dataclass(frozen=True)
class Comparison:
    """1 if the first answer wins in both orders, 0 if it loses in both, otherwise 0.5. `flipped` means that the order decided."""

    outcome: float
    flipped: bool


def mark(judge: JudgeModel, prompt: str, reference: str, answer: str, rules: Rules) -> Mapping[str, int] | None:
    """Marks from 1 to 5 by criterion (Liu et al. 2023, "G-Eval"); None if the judge gave none. Blocks."""
    messages, schema = rubric_request(prompt, reference, answer, rules.criteria, rules.guidelines)
    marks = judge.ask(messages, schema, MAX_TOKENS)
    return None if marks is None else {name: int(value) for name, value in marks.items()}


def compare(
    judge: JudgeModel, prompt: str, reference: str, ours: str, theirs: str, rules: Rules
) -> Comparison | None:
    """Compare two answers in both orders, because judges prefer a position; None if the judge did not answer both. Blocks.

    Source: Zheng et al. 2023, "Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena", section 3.4: a win counts only in both orders.
    """
    if ours == theirs:
        return Comparison(TIE, flipped=False)
    outcomes = [
        _outcome(judge, (prompt, reference, *pair), readings, rules)
        for pair, readings in (((ours, theirs), IN_ORDER), ((theirs, ours), IN_REVERSE))
    ]
    first, second = outcomes
    if first is None or second is None:
        return None
    return Comparison(first if first == second else TIE, flipped={first, second} == {WIN, LOSS})


def _outcome(
    judge: JudgeModel, texts: tuple[str, str, str, str], readings: Mapping[str, float], rules: Rules
) -> float | None:
    messages, schema = pairwise_request(*texts, rules.criteria, rules.guidelines)
    verdict = judge.ask(messages, schema, MAX_TOKENS)
    return None if verdict is None else readings[verdict["better"]]
