"""What the word lists say to a name that a model found. They lower its score where it looks like ordinary words; they veto nothing."""

from collections.abc import Sequence

from services.anonymization.recognise.lexicon import Lexicon
from services.anonymization.recognise.tokens import Token, is_space, starts_sentence, tokenise

# A single capitalised word after one of these is a defined term of a contract.
DETERMINERS = ("the", "a", "an", "any", "each", "such", "this", "every", "our", "your", "their", "its", "no", "all")
ORDINARY = ("never", "departments", "not_names")
NAMES = ("PERSON", "CLIENT")
SHORTEST_NAME = 3
TECHNICAL_DOUBT = 0.45
ORDINARY_DOUBT = 0.45
LABEL_DOUBT = 0.5
START_DOUBT = 0.15


class WordVotes:
    """Votes on the names of a model. Thread-safe."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon

    def doubt(self, tokens: Sequence[Token], first: int, last: int, kind: str) -> float:
        """How much the words [first, last] of a paragraph lower the score of a person or an organisation, from 0 to 1."""
        name = [token for token in tokens[first : last + 1] if token.is_capitalised and not token.is_initial]
        words = [token.bare for token in name]
        if not words:
            return 0.1
        doubt = self._doubt_person(words) if kind == "PERSON" else self._doubt_organisation(words)
        if self._is_label(tokens, first, last):
            doubt += LABEL_DOUBT
        if len(words) == 1:
            doubt += self._doubt_single(tokens, first, words[0], kind)
        elif doubt and starts_sentence(tokens, first):
            doubt += START_DOUBT
        return min(1.0, doubt)

    def _doubt_person(self, words: Sequence[str]) -> float:
        if all(self._lexicon.has_any(ORDINARY, word) for word in words):
            return ORDINARY_DOUBT
        if any(self.is_name(word) for word in words):
            return 0.0
        if any(self._lexicon.has_any((*ORDINARY, "places", "products"), word) for word in words):
            return 0.3
        return 0.3 if all(map(self._lexicon.is_plain, words)) else 0.0

    def _doubt_organisation(self, words: Sequence[str]) -> float:
        if all(self._lexicon.has_any(ORDINARY, word) for word in words):
            return ORDINARY_DOUBT
        if all(self._lexicon.has("places", word) for word in words):
            return 0.35
        is_company = self._lexicon.has("companies", words[0])
        if any(self._lexicon.has("products", word) for word in words) and not (is_company and len(words) == 1):
            return 0.35
        if is_company or not all(
            self._lexicon.has_any(ORDINARY, word) or self._lexicon.is_plain(word) for word in words
        ):
            return 0.0
        if self._lexicon.has("laws", words[-1]):
            return 0.4
        return 0.1 if any(self._lexicon.has("kinds_last", word) for word in words) else 0.25

    def _doubt_single(self, tokens: Sequence[Token], first: int, word: str, kind: str) -> float:
        plain = self._lexicon.is_plain(word)
        doubt = START_DOUBT if plain and starts_sentence(tokens, first) else 0.0
        is_defined = first > 0 and is_space(tokens[first].gap) and tokens[first - 1].text.lower() in DETERMINERS
        if is_defined and (plain or self._lexicon.has_any(ORDINARY, word)) and not self.is_name(word):
            doubt += 0.25
        if word.isupper() and kind == "CLIENT":
            doubt += 0.35 if self._lexicon.has("acronyms", word) else 0.1
        if kind == "PERSON" and len(word) < SHORTEST_NAME:
            doubt += 0.2
        return doubt

    def _is_label(self, tokens: Sequence[Token], first: int, last: int) -> bool:
        """True for `Tenant:`, `Sent:` and the like at the beginning of a line."""
        following = tokens[last + 1] if last + 1 < len(tokens) else None
        if following is None or not following.gap.lstrip().startswith(":") or not starts_sentence(tokens, first):
            return False
        return self._lexicon.has_any(("person_labels", "not_names", "departments", "never"), tokens[last].bare)

    def doubt_technical(self, value: str, kind: str, technicality: float) -> float:
        """How much a technical text lowers the score of a name that is not certain, from 0 to 1."""
        if technicality == 0 or kind not in NAMES:
            return 0.0
        words = [token.bare for token in tokenise(value) if token.is_capitalised and not token.is_initial]
        return 0.0 if kind == "PERSON" and self.is_full_name(words) else TECHNICAL_DOUBT * technicality

    def is_full_name(self, words: Sequence[str]) -> bool:
        """True for known names, and for a known given name before words that mean nothing else."""
        if len(words) < 2:
            return False
        if all(map(self.is_name, words)):
            return True
        others = words if not self._lexicon.is_common_given(words[0]) else words[1:]
        return self._lexicon.given(words[0]) is not None and not any(
            self._lexicon.is_plain(word) or self._lexicon.has_any((*ORDINARY, "places", "products"), word)
            for word in others
        )

    def is_name(self, word: str) -> bool:
        """True for a known given name or surname that is not first of all an ordinary word."""
        known = self._lexicon.is_surname(word) or self._lexicon.given(word) is not None
        return known and not (self._lexicon.is_ambiguous(word) and self._lexicon.is_plain(word))
