"""How far the judge model agrees with the experts: Cohen's kappa over pairs of drafts that experts ranked."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from statistics import fmean

from services.evaluation.domain import MIN_RANKED_PAIRS, Agreement, RankedPair
from services.evaluation.judge.prompts import Request, Rules
from services.evaluation.judge.verdicts import LOSS, TIE, WIN, compare, mark
from services.evaluation.ports import JudgeModel

MAX_PAIRS = 60
FIRST, SECOND, NEITHER = "first", "second", "tie"
LABELS = {WIN: FIRST, LOSS: SECOND, TIE: NEITHER}


def measure_agreement(
    judge: JudgeModel, pairs: Sequence[RankedPair], rules: Rules, *, mode: str, concurrency: int = 4
) -> Agreement:
    """Cohen's kappa (Cohen 1960) between the experts' choices and the judge model's, `pairwise` or by `rubric`. Blocks.

    Each pair occurs in an order drawn by its id, so that a judge that always names one position agrees by chance only. By rubric, the
    answer with the higher mean mark is the better one. Pairs on which the judge gives no verdict count as a third answer.
    """
    with ThreadPoolExecutor(concurrency, thread_name_prefix="judge") as pool:
        outcomes = list(pool.map(lambda pair: _outcome(judge, pair, rules, mode), pairs))
    failures = sum(outcome is None for outcome in outcomes)
    if len(pairs) < MIN_RANKED_PAIRS:
        return Agreement(None, len(pairs), failures)
    verdicts = [TIE if outcome is None else outcome for outcome in outcomes]
    labels = [_labels(pair, verdict) for pair, verdict in zip(pairs, verdicts, strict=True)]
    return Agreement(cohens_kappa(labels), len(pairs), failures)


def cohens_kappa(labels: Sequence[tuple[str, str]]) -> float:
    """Kappa of two raters' labels; 0 if chance alone explains every label."""
    if len({label for pair in labels for label in pair}) < 2:
        return 0.0
    # Imports scikit-learn and pandas.
    from nltk.metrics.agreement import AnnotationTask

    entries = [
        (rater, str(item), label) for item, pair in enumerate(labels) for rater, label in zip("ab", pair, strict=True)
    ]
    return float(AnnotationTask(data=entries).kappa())


def _labels(pair: RankedPair, outcome: float) -> tuple[str, str]:
    """The experts' label and the judge's, in the order that is drawn for the pair."""
    if sha256(pair.row_id.encode()).digest()[-1] % 2:
        return FIRST, LABELS[outcome]
    return SECOND, LABELS[1.0 - outcome]


def _outcome(judge: JudgeModel, pair: RankedPair, rules: Rules, mode: str) -> float | None:
    """1 if the judge prefers the chosen draft, 0 if the rejected one."""
    if mode == "pairwise":
        comparison = compare(judge, Request(pair.prompt), pair.chosen, pair.rejected, rules)
        return None if comparison is None else comparison.outcome
    marks = [mark(judge, Request(pair.prompt), answer, rules) for answer in (pair.chosen, pair.rejected)]
    if not marks[0] or not marks[1]:
        return None
    chosen, rejected = (fmean(entry.values()) for entry in marks if entry)
    return TIE if chosen == rejected else WIN if chosen > rejected else LOSS
