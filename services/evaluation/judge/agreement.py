"""How far the judge model agrees with the experts: Cohen's kappa over pairs of drafts that experts ranked."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from statistics import fmean

from nltk.metrics.agreement import AnnotationTask

from services.evaluation.judge.verdicts import LOSS, TIE, WIN, Rules, compare, mark
from services.evaluation.ports import JudgeModel

# Kappa over fewer pairs says nothing.
MIN_PAIRS = 10
MAX_PAIRS = 60
FIRST, SECOND, NEITHER = "first", "second", "tie"
LABELS = {WIN: FIRST, LOSS: SECOND, TIE: NEITHER}


@dataclass(frozen=True)
class RankedPair:
    """Two drafts to one prompt of which experts preferred the first."""

    row_id: str
    prompt: str
    chosen: str
    rejected: str


@dataclass(frozen=True)
class Agreement:
    """Cohen's kappa of the judge model with the experts over a number of pairs; None over fewer than ten."""

    kappa: float | None
    pairs: int
    failures: int = 0

    def shortfall(self, minimum: float) -> str:
        """Why the judge model's scores do not count in the gate; empty if they do."""
        if self.kappa is None:
            return (
                f"the judge model's agreement with the experts is unknown: {self.pairs} ranked pairs, at least {MIN_PAIRS} are"
                " needed; the metric is shown and does not count"
            )
        if self.kappa < minimum:
            return (
                f"the judge model's agreement with the experts is too low: kappa {self.kappa:.2f} over {self.pairs} pairs, at least"
                f" {minimum:.2f} is needed; the metric is shown and does not count"
            )
        return ""


UNKNOWN = Agreement(None, 0)


def choose_pairs(pairs: Iterable[RankedPair]) -> list[RankedPair]:
    """At most 60 pairs, always the same ones, chosen by a hash."""
    return sorted(pairs, key=lambda pair: sha256(pair.row_id.encode()).digest())[:MAX_PAIRS]


def measure_agreement(
    judge: JudgeModel, pairs: Sequence[RankedPair], rules: Rules, *, mode: str, concurrency: int = 4
) -> Agreement:
    """Cohen's kappa (Cohen 1960) between the experts' choices and the judge model's, `pairwise` or by `rubric`. Blocks.

    Each pair stands in an order drawn by its id, so that a judge that always names one position agrees by chance only. By rubric, the
    answer with the higher mean mark is the better one. Pairs on which the judge gives no verdict count as a third answer.
    """
    with ThreadPoolExecutor(concurrency, thread_name_prefix="judge") as pool:
        outcomes = list(pool.map(lambda pair: _outcome(judge, pair, rules, mode), pairs))
    failures = sum(outcome is None for outcome in outcomes)
    if len(pairs) < MIN_PAIRS:
        return Agreement(None, len(pairs), failures)
    verdicts = [TIE if outcome is None else outcome for outcome in outcomes]
    labels = [_labels(pair, verdict) for pair, verdict in zip(pairs, verdicts, strict=True)]
    return Agreement(cohens_kappa(labels), len(pairs), failures)


def cohens_kappa(labels: Sequence[tuple[str, str]]) -> float:
    """Kappa of two raters' labels; 0 if chance alone explains every label."""
    if len({label for pair in labels for label in pair}) < 2:
        return 0.0
    entries = [(rater, str(item), label) for item, pair in enumerate(labels) for rater, label in zip("ab", pair, strict=True)]
    return float(AnnotationTask(data=entries).kappa())


def _labels(pair: RankedPair, outcome: float) -> tuple[str, str]:
    """The experts' label and the judge's, in the order that is drawn for the pair."""
    if sha256(pair.row_id.encode()).digest()[-1] % 2:
        return FIRST, LABELS[outcome]
    return SECOND, LABELS[1.0 - outcome]


def _outcome(judge: JudgeModel, pair: RankedPair, rules: Rules, mode: str) -> float | None:
    """1 if the judge prefers the chosen draft, 0 if the rejected one."""
    if mode == "pairwise":
        comparison = compare(judge, pair.prompt, "", pair.chosen, pair.rejected, rules)
        return None if comparison is None else comparison.outcome
    marks = [mark(judge, pair.prompt, "", answer, rules) for answer in (pair.chosen, pair.rejected)]
    if not marks[0] or not marks[1]:
        return None
    chosen, rejected = (fmean(entry.values()) for entry in marks if entry)
    return TIE if chosen == rejected else WIN if chosen > rejected else LOSS
