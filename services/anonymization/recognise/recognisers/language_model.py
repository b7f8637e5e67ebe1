"""The language model's names, checked against the lexicon, because a small model takes many ordinary words for companies."""

from collections.abc import Iterable, Sequence
from typing import Any

from services.anonymization.domain import Finding
from services.anonymization.recognise.lexicon import Lexicon
from services.anonymization.recognise.tokens import Token, is_heading, is_space, starts_sentence, tokenise

TYPES = {
    "PERSON": "PERSON",
    "ORG": "CLIENT",
    "ORGANIZATION": "CLIENT",
    "LOCATION": "LOCATION",
    "GPE": "LOCATION",
    "LOC": "LOCATION",
    "NRP": "NRP",
    "NORP": "NRP",
    "DATE_TIME": "DATE_TIME",
    "DATE": "DATE_TIME",
}
# A single capitalised word after one of these is a defined term of a contract.
DETERMINERS = ("the", "a", "an", "any", "each", "such", "this", "every")
NOT_STRANGE = ("never", "departments", "not_names", "products", "places")


class ModelEntities:
    """Filters the entities of a spaCy document."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon

    def may_find(self, text: str, findings: Iterable[Finding]) -> bool:
        """True if a word outside of the findings could be accepted as a name."""
        if is_heading(text):
            return False
        tokens = tokenise(text)
        covered = [(finding.start, finding.end) for finding in findings]
        return any(
            self._is_strange(token, tokens, index, "PERSON")
            and not any(start <= token.start < end for start, end in covered)
            for index, token in enumerate(tokens)
        )

    def find(self, text: str, entities: Any) -> list[Finding]:
        """The entities that the lexicon does not contradict."""
        tokens = tokenise(text)
        findings = []
        for entity in entities:
            kind = TYPES.get(entity.label_)
            inside = [
                (index, token)
                for index, token in enumerate(tokens)
                if token.start >= entity.start_char and token.end <= entity.end_char + 2
            ]
            inside = [pair for pair in inside if pair[1].start < entity.end_char]
            if kind in ("PERSON", "CLIENT"):
                name = None if is_heading(text) else self._name(tokens, inside, kind)
                if name:
                    findings.append(name)
            elif kind:
                findings.append(Finding(entity.start_char, entity.end_char, kind, 0.2))
        return findings

    def _name(self, tokens: Sequence[Token], inside: list[tuple[int, Token]], kind: str) -> Finding | None:
        while inside and (
            not inside[0][1].is_capitalised
            or (
                self._is_common(inside[0][1])
                and len(inside) > 1
                and inside[0][1].text.lower() in ("the", "our", "to", "from", "heard", "owed", "concluded")
            )
        ):
            inside = inside[1:]
        while inside and (not inside[-1][1].is_capitalised or any(letter.isdigit() for letter in inside[-1][1].text)):
            inside = inside[:-1]
        if not inside or any(any(letter.isdigit() for letter in token.text) for _, token in inside):
            return None
        if not any(self._is_strange(token, tokens, index, kind) for index, token in inside):
            return None
        words = [token.bare for _, token in inside if token.is_capitalised and not token.is_initial]
        if all(map(self._lexicon.is_plain, words)) and not all(map(self._is_name, words)):
            return None
        first = inside[0][0]
        defined = first > 0 and is_space(tokens[first].gap) and tokens[first - 1].text.lower() in DETERMINERS
        if kind == "CLIENT" and len(inside) == 1 and inside[0][1].text.isupper():
            return None
        if defined and len(inside) == 1 and not self._is_name(inside[0][1].bare):
            return None
        return Finding(inside[0][1].start, inside[-1][1].bare_end, kind, 0.4)

    def _is_name(self, word: str) -> bool:
        return self._lexicon.is_surname(word) or self._lexicon.given(word) is not None

    def _is_common(self, token: Token) -> bool:
        return (
            self._lexicon.has("never", token.bare)
            or self._lexicon.has("departments", token.bare)
            or self._lexicon.is_plain(token.bare)
        )

    def _is_strange(self, token: Token, tokens: Sequence[Token], index: int, kind: str) -> bool:
        word = token.bare
        if not token.is_capitalised or self._lexicon.has_any(NOT_STRANGE, word):
            return False
        if not self._lexicon.is_plain(word):
            return True
        return (
            kind == "PERSON"
            and self._lexicon.is_surname(word)
            and not starts_sentence(tokens, index)
            and not self._lexicon.is_ambiguous(word)
        )
