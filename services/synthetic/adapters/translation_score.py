"""Scores of translations by sacrebleu."""

from sacrebleu.metrics import CHRF


class ChrfScore:
    """A `synthesis.ports.ScoreTranslation`: chrF2 (Popović 2015), 0 to 100. Thread-safe."""

    def __init__(self) -> None:
        self._metric = CHRF()

    def __call__(self, hypothesis: str, reference: str) -> float:
        return float(self._metric.sentence_score(hypothesis, [reference]).score)
