"""Organisations by their short names: defined in brackets, joined by an ampersand, abbreviations that act."""

import re
from collections.abc import Iterator, Sequence

from services.anonymization.domain import Finding
from services.anonymization.recognise.lexicon import Lexicon
from services.anonymization.recognise.tokens import Token, blank_long_runs, is_space, starts_sentence, tokenise

CLIENT = "CLIENT"
DEFINED = re.compile(
    r"(?P<name>[^\W\d_a-z][\w.'’&-]*(?:,? (?:of|and|the|for|de|du|des|der|und|&|[^\W\d_a-z][\w.'’&-]*)){1,9}) "
    r"\((?:the |hereinafter |together, )?[\"“”'‘](?P<short>[^\W\d_a-z][\w&.-]*(?: [^\W\d_a-z][\w&-]*){0,2})[\"“”'’]\)"
)
AMPERSAND = re.compile(r"(?<![\w&])(?P<name>[A-Z]{1,4}&[A-Z]{1,4}|[A-Z]{2}&T)(?![\w&])")
# Common abbreviations with an ampersand that are no companies.
ORDINARY = frozenset((
    "R&D", "P&L", "Q&A", "M&A", "T&C", "T&CS", "O&M", "H&S", "L&D", "B&B", "D&O", "A&E", "S&M", "C&B", "V&V", "F&B", "G&A", "T&D", "T&E",
    "I&D", "D&I", "E&O",
))  # fmt: skip
ACTING = frozenset((
    "has", "had", "have", "will", "would", "said", "says", "needs", "wants", "announced", "reported", "is", "was", "owns", "owned",
    "signed", "agreed", "won't", "can", "could", "filed", "sells", "sold", "buys", "bought", "pays", "paid", "acquired", "launched",
    "joined", "rejected", "approved", "asked", "told", "confirmed", "denied", "and", "or",
))  # fmt: skip
BEFORE = frozenset(["with", "from", "by", "joined", "between", "against", "versus", "vs", "of"])
ROMAN = re.compile(r"[IVXLCDM]+")
SHORTEST, LONGEST = 3, 6


class ShortNameRecogniser:
    """Finds short names of organisations in a paragraph."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon

    def find(self, text: str) -> list[Finding]:
        """Short names, and the long ones that define them."""
        return [*self._defined(text), *self._ampersands(text), *self._acting(text)]

    def _defined(self, text: str) -> Iterator[Finding]:
        """`Regional Gas Network Company ("RGNC")`: both, if the short name is made from the long one."""
        for match in DEFINED.finditer(blank_long_runs(text)):
            words = re.findall(r"[^\W\d_][\w.'’-]*", match["name"])
            start = self._begin(words, match["short"])
            if start is not None:
                place = match["name"].index(words[start])
                yield Finding(match.start() + place, match.end("name"), CLIENT, 0.8)
                yield Finding(match.start("short"), match.end("short"), CLIENT, 0.85)

    def _begin(self, words: Sequence[str], short: str) -> int | None:
        """The first word of the name that the short name abbreviates, or None."""
        capitalised = [(place, word) for place, word in enumerate(words) if word[0].isupper()]
        letters = re.sub(r"[^A-Z]", "", short)
        if short.isupper() and len(letters) > 1:
            for first in range(len(capitalised)):
                initials = "".join(word[0] for _, word in capitalised[first:])
                if initials.startswith(letters):
                    return capitalised[first][0]
            return None
        head = short.split(maxsplit=1)[0]
        is_term = self._lexicon.is_plain(head) and not self._lexicon.is_surname(head)
        return next((place for place, word in capitalised if word == head and not is_term), None)

    def _ampersands(self, text: str) -> Iterator[Finding]:
        """`AT&T`."""
        for match in AMPERSAND.finditer(text):
            if match["name"] not in ORDINARY:
                yield Finding(match.start(), match.end(), CLIENT, 0.6)

    def _acting(self, text: str) -> Iterator[Finding]:
        """An abbreviation that does what only organisations do: `ENA needs the numbers`."""
        tokens = tokenise(text)
        for index, token in enumerate(tokens):
            known = token.bare.isupper() and len(token.bare) > 2 and self._lexicon.has("companies", token.bare)
            if known or (self._is_acronym(token) and self._acts(tokens, index)):
                yield Finding(token.start, token.bare_end, CLIENT, 0.5 if known else 0.45)

    def _is_acronym(self, token: Token) -> bool:
        word = token.bare
        return (
            word.isupper()
            and word.isalpha()
            and SHORTEST <= len(word) <= LONGEST
            and not self._lexicon.has_any(("acronyms", "not_names", "never", "departments", "products"), word)
            and not self._lexicon.is_plain(word)
            and not ROMAN.fullmatch(word)
        )

    def _acts(self, tokens: Sequence[Token], index: int) -> bool:
        following = tokens[index + 1] if index + 1 < len(tokens) else None
        if following is not None and is_space(following.gap) and following.text in ACTING:
            return not starts_sentence(tokens, index + 1)
        return index > 0 and is_space(tokens[index].gap) and tokens[index - 1].text.lower() in BEFORE
