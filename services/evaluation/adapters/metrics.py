"""How close answers are to their references."""

import re
from collections.abc import Sequence

import numpy
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer
from sklearn.metrics import f1_score

ROUGE = ("rouge1", "rouge2", "rougeL")


def measure(answers: Sequence[str], references: Sequence[str], house_terms: Sequence[str]) -> dict[str, float]:
    """ROUGE F1 (mean over the answers, stemmed), BLEU (of the corpus, 0 to 100) and the micro F1 of house terms, which is absent where
    the specialist names none."""
    scorer = RougeScorer(list(ROUGE), use_stemmer=True)
    pairs = [scorer.score(reference, answer) for reference, answer in zip(references, answers, strict=True)]
    values = {name: sum(pair[name].fmeasure for pair in pairs) / len(pairs) for name in ROUGE}
    # A single short answer has no 4-grams: effective order keeps its BLEU meaningful and changes nothing for a corpus.
    bleu = sacrebleu.BLEU(effective_order=len(answers) == 1)
    values["bleu"] = float(bleu.corpus_score(list(answers), [list(references)]).score)
    if house_terms:
        said, meant = (numpy.array([_labels(text, house_terms) for text in texts]) for texts in (answers, references))
        values["house_terms_f1"] = float(f1_score(meant, said, average="micro", zero_division=0))
    return values


def _labels(text: str, terms: Sequence[str]) -> list[int]:
    """For each term 1 if the text has it, in whatever case and line breaks."""
    plain = " ".join(text.lower().split())
    return [int(bool(re.search(rf"(?<!\w){re.escape(' '.join(term.lower().split()))}(?!\w)", plain))) for term in terms]
