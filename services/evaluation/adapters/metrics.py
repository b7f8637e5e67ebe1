"""Metrics of answers against their references, computed with rouge-score and sacrebleu. To add one, see docs/how-to/add-a-metric.md."""

import re
from collections.abc import Sequence

import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

ROUGE = ("rouge1", "rouge2", "rougeL")


def compute_metrics(answers: Sequence[str], references: Sequence[str], house_terms: Sequence[str]) -> dict[str, float]:
    """ROUGE F1 (stemmed, mean over the answers), corpus BLEU (0 to 100), and the micro F1 of house terms if there are any."""
    scorer = RougeScorer(list(ROUGE), use_stemmer=True)
    pairs = [scorer.score(reference, answer) for reference, answer in zip(references, answers, strict=True)]
    values = {name: sum(pair[name].fmeasure for pair in pairs) / len(pairs) for name in ROUGE}
    # A single short answer has no 4-grams. Effective order makes its BLEU meaningful; a corpus does not need it.
    bleu = sacrebleu.BLEU(effective_order=len(answers) == 1)
    values["bleu"] = float(bleu.corpus_score(list(answers), [list(references)]).score)
    if house_terms:
        values["house_terms_f1"] = _micro_f1(answers, references, house_terms)
    return values


def _micro_f1(answers: Sequence[str], references: Sequence[str], terms: Sequence[str]) -> float:
    """F1 over all occurrences: 2 TP / (2 TP + FP + FN), where a term counts once per text; 0 if no text has a term."""
    common = total = 0
    for answer, reference in zip(answers, references, strict=True):
        said, expected = _terms_in(answer, terms), _terms_in(reference, terms)
        common += len(said & expected)
        total += len(said) + len(expected)
    return 2 * common / total if total else 0.0


def _terms_in(text: str, terms: Sequence[str]) -> set[int]:
    """The indexes of the terms that occur in the text as whole words, ignoring case and line breaks."""
    plain = " ".join(text.lower().split())
    patterns = (rf"(?<!\w){re.escape(' '.join(term.lower().split()))}(?!\w)" for term in terms)
    return {index for index, pattern in enumerate(patterns) if re.search(pattern, plain)}
