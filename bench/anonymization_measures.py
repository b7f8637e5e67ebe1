"""What the bench of anonymisation counts: characters, whole mentions, people whose every mention is gone, false alarms in manuals."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from bench.generated import Gold

Place = tuple[int, int]
MAX_MISSES = 8
# True names in manuals do not count as false alarms: the people and the foundation that signed them, and addresses.
SIGNED = re.compile(
    r"(?im)^.*(?:written by|authors?\b|maintain|copyright|report(?:ing)? bugs|contributed by|thanks to|@|foundation|\(c\)|©).*$"
)


@dataclass
class Tally:
    """Counts of characters: reported, true, and both; by type, true ones and those that were reported; mentions and people."""

    hit: int = 0
    reported: int = 0
    true: int = 0
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
        self.hit += len(reported & true)
        self.reported += len(reported)
        self.true += len(true)
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
        """Precision, recall, F1, F2, recall by type, the shares of mentions and of people that are wholly gone."""
        precision, recall = self.hit / max(1, self.reported), self.hit / max(1, self.true)
        both = max(1e-9, precision + recall)
        return {
            "precision": round(precision, 4),
            "recall": round(recall, 4),
            "f1": round(2 * precision * recall / both, 4),
            "f2": round(5 * precision * recall / max(1e-9, 4 * precision + recall), 4),
            "mention_recall": round(self.whole_mentions / max(1, self.mentions), 4),
            "people_safe": round(self.safe_people / max(1, self.people), 4),
            "recall_by_type": {
                kind: round(self.by_type[kind] / total, 4) for kind, total in sorted(self.of_type.items())
            },
        }


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
