"""The names of the people in one document, by word: which person an initial or a bare surname means.

Filled once per document, so that every form of a name gets the same surrogate.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from services.anonymization.recognise.lexicon import fold
from services.anonymization.recognise.tokens import tokenise

UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "å": "aa", "ø": "oe", "ß": "ss"})


@dataclass
class People:
    """Folded given names and surnames, the original of each folded word, and given names by (initial, folded surname)."""

    given: set[str] = field(default_factory=set)
    family: set[str] = field(default_factory=set)
    words: dict[str, str] = field(default_factory=dict)
    bearers: dict[tuple[str, str], str] = field(default_factory=dict)

    @classmethod
    def of(cls, names: Iterable[str]) -> "People":
        """Read full names; single words are ignored."""
        people = cls()
        for name in names:
            parts = [token.bare for token in tokenise(name) if token.is_capitalised]
            if len(parts) < 2:
                continue
            first, *rest = parts
            if len(first) > 1:
                people.given.add(fold(first))
            people.family.update(map(fold, rest))
            for word in parts:
                people.words[fold(word)] = word
                people.words[fold(word.lower().translate(UMLAUTS))] = word
            people.bearers.setdefault((fold(first)[0], fold(rest[-1])), first)
        return people
