"""What the language model takes for names, held against the lexicon: a small model calls many a plain word a firm."""

from typing import Any

from services.anonymization.adapters.lexicon import Lexicon
from services.anonymization.adapters.recognisers.tokens import Token, is_heading, starts_sentence, tokenise
from services.anonymization.domain import Finding

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


class LanguageModel:
    """Findings of a spaCy document."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon

    def may_find(self, text: str) -> bool:
        """True where some word could be believed to be a name."""
        tokens = tokenise(text)
        return not is_heading(text) and any(
            self._is_strange(token, tokens, index, "PERSON") for index, token in enumerate(tokens)
        )

    def find(self, text: str, entities: Any) -> list[Finding]:
        """Entities that the lexicon believes in."""
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
                found = None if is_heading(text) else self._name(tokens, inside, kind)
                if found:
                    findings.append(found)
            elif kind:
                findings.append(Finding(entity.start_char, entity.end_char, kind, 0.2))
        return findings

    def _name(self, tokens: list[Token], inside: list[tuple[int, Token]], kind: str) -> Finding | None:
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
        if kind == "CLIENT" and len(inside) == 1 and inside[0][1].text.isupper():
            return None
        return Finding(inside[0][1].start, inside[-1][1].bare_end, kind, 0.4)

    def _is_common(self, token: Token) -> bool:
        return (
            self._lexicon.has("never", token.bare)
            or self._lexicon.has("departments", token.bare)
            or self._lexicon.is_plain(token.bare)
        )

    def _is_strange(self, token: Token, tokens: list[Token], index: int, kind: str) -> bool:
        word = token.bare
        if not token.is_capitalised or self._lexicon.has("never", word) or self._lexicon.has("departments", word):
            return False
        if not self._lexicon.is_plain(word):
            return True
        return (
            kind == "PERSON"
            and self._lexicon.is_surname(word)
            and not starts_sentence(tokens, index)
            and not self._lexicon.is_ambiguous(word)
        )
