"""What the benches of anonymisation count: characters, whole mentions, people whose every mention is gone, false alarms in manuals."""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.generated import Gold

Place = tuple[int, int]
# Characters of a text: reported ones that are true, reported, true.
Counts = tuple[int, int, int]
RESAMPLES = 2_000
MAX_MISSES = 8
# True names in manuals do not count as false alarms: the people and the foundation that signed them, and addresses.
SIGNED = re.compile(
    r"(?im)^.*(?:written by|authors?\b|maintain|copyright|report(?:ing)? bugs|contributed by|thanks to|@|foundation|\(c\)|©).*$"
)


@dataclass
class Tally:
    """Counts of characters by text; by type, true ones and those that were reported; mentions and people."""

    counts: list[Counts] = field(default_factory=list)
    mentions: int = 0
    whole_mentions: int = 0
    people: int = 0
    safe_people: int = 0
    by_type: Counter[str] = field(default_factory=Counter)
    of_type: Counter[str] = field(default_factory=Counter)

    def add(self, gold: Gold, places: Iterable[Place]) -> None:
        """Count one text."""
        reported = letters(gold.text, places)
        true = letters(gold.text, ((start, end) for start, end, _ in gold.spans))
        self.counts.append((len(reported & true), len(reported), len(true)))
        safe: dict[str, bool] = defaultdict(lambda: True)
        for start, end, kind in gold.spans:
            of_span = letters(gold.text, [(start, end)])
            self.by_type[kind] += len(of_span & reported)
            self.of_type[kind] += len(of_span)
            is_whole = all(not gold.text[place].isalnum() for place in of_span - reported)
            self.mentions += 1
            self.whole_mentions += is_whole
            if kind == "PERSON":
                surname = gold.text[start:end].split()[-1].casefold()
                safe[surname] = safe[surname] and is_whole
        self.people += len(safe)
        self.safe_people += sum(safe.values())

    def figures(self) -> dict[str, Any]:
        """Precision, recall, F2 with its interval, recall by type, the shares of mentions and of people that are wholly gone.

        `people_safe` is None if the texts name nobody.
        """
        precision, recall, f2 = score_counts(self.counts)
        return {
            "texts": len(self.counts),
            "precision": round(precision, 4),
            "recall": round(recall, 4),
            "f2": round(f2, 4),
            "f2_interval": f2_interval(self.counts),
            "mention_recall": round(self.whole_mentions / max(1, self.mentions), 4),
            "people_safe": round(self.safe_people / self.people, 4) if self.people else None,
            "recall_by_type": {
                kind: round(self.by_type[kind] / total, 4) for kind, total in sorted(self.of_type.items())
            },
        }


def score_counts(counts: Iterable[Counts]) -> tuple[float, float, float]:
    """Precision, recall and F2 over texts."""
    hit, reported, true = (sum(column) for column in zip(*counts, strict=True))
    precision, recall = hit / max(1, reported), hit / max(1, true)
    return precision, recall, 5 * precision * recall / max(1e-9, 4 * precision + recall)


def f2_interval(counts: Sequence[Counts]) -> tuple[float, float]:
    """The 95 % interval of F2 by a bootstrap over texts (Efron, Annals of Statistics 7, 1979)."""
    chance = random.Random(len(counts))
    draws = sorted(score_counts(chance.choices(counts, k=len(counts)))[2] for _ in range(RESAMPLES))
    return round(draws[RESAMPLES // 40], 4), round(draws[-1 - RESAMPLES // 40], 4)


def letters(text: str, places: Iterable[Place]) -> set[int]:
    """The characters of the places, without spaces."""
    return {at for start, end in places for at in range(start, end) if not text[at].isspace()}


def false_alarms(pages: Iterable[tuple[str, str]], find: Any) -> dict[str, float]:
    """Findings per 1,000 words of manuals, without those on lines that name authors or addresses."""
    words = alarms = 0
    for _, text in pages:
        words += len(re.findall(r"\w+", text))
        signed = [match.span() for match in SIGNED.finditer(text)]
        alarms += sum(not any(first <= start < last for first, last in signed) for start, _ in find(text))
    return {"words": words, "alarms": alarms, "per_1000_words": round(1_000 * alarms / max(1, words), 2)}
