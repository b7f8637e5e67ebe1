"""What technical text says about findings: code, identifiers, acronyms and numbers of sections are not personal values."""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from services.anonymization.domain import Finding
from services.anonymization.recognise.code import code_places, is_labelled
from services.anonymization.recognise.hosts import is_host
from services.anonymization.recognise.lexicon import Lexicon, fold
from services.anonymization.recognise.overlaps import Stretches
from services.anonymization.recognise.section_numbers import SectionNumbers
from services.anonymization.recognise.technical import FIRM_MARKS, WORD, technicality
from services.anonymization.recognise.tokens import Token, tokenise
from services.anonymization.recognise.word_votes import NAMES, WordVotes

# From this score on, a finding occurs in technical text as elsewhere: a title before a name, a legal form, a word of the policy.
CERTAIN = 0.8
# A legal form, and a word of the policy.
FORMED, LISTED = 0.9, 1.0
SEVERAL = 2
KINDS = ("kinds_first", "kinds_last", "kinds_of")
# How technical a text is in which identifiers name programs, and in which every unknown name does.
LEAST_TECHNICAL, MAINLY_TECHNICAL = 0.25, 0.5
# Fewer words tell too little about a text.
LEAST_WORDS = 60
# Types that a checksum, a form or a label shows, also in code.
SHOWN_BY_FORM = frozenset((
    "EMAIL_ADDRESS", "IBAN", "CREDIT_CARD", "SECRET", "IP_ADDRESS", "NATIONAL_ID", "ACCOUNT_NUMBER", "URL", "DATE_OF_BIRTH", "USERNAME",
))  # fmt: skip
QUOTED = re.compile(r"\"[^\"\n]{0,200}\"|'[^'\n]{0,200}'|[\w.+-]+@[\w.-]+|(?i:[/\\](?:home|users)[/\\])[\w.-]+")
CODE_WORD = re.compile(r"[^\W\d_]{2,}")
SMALL_WORD = re.compile(r"(?<![\w@./-])[^\W\d_A-Z]{2,}(?![\w@/])")
# `ErrorResponse`, `GnuCash`, `xfce4`, `LC_CTYPE`
IDENTIFIER = re.compile(r"[^\W\d_]*[a-zß-öø-ÿ][A-Z]\w*|\w*[\d_]\w*|[A-Z]{2,}[a-z]\w*")
# `McDonald`, `DeVries`, `O'Brien`
FAMILY = re.compile(r"(?:Mac|Mc|De|Du|La|Le|Di|Da|Van|Von|Fitz|St|O['’]|D['’]|L['’])[A-Z][a-zß-öø-ÿ]+")
LONGEST_ACRONYM = 8


class TechnicalText:
    """One or several joined texts; code in one of them makes no name in another less likely."""

    def __init__(self, text: str, ends: Sequence[int], lexicon: Lexicon) -> None:
        """`ends` are the ends of the texts in `text`; without any, it is one."""
        self._text = text
        self._ends = [end for end in ends if end < len(text)]
        self._parts = [_Part(text[start:end], start) for start, end in pairwise((0, *self._ends, len(text)))]
        self._numbers = SectionNumbers(text)
        self._lexicon = lexicon
        self._votes = WordVotes(lexicon)

    def sift(self, findings: Iterable[Finding], offset: int = 0) -> Iterator[Finding]:
        """The findings of the passage that begins at `offset`, without those that name no person or company, the rest with their doubt."""
        for finding in findings:
            place = finding.shift(offset)
            part = self._parts[bisect_right(self._ends, place.start)]
            if finding.score < LISTED and self._is_technical(part, place):
                continue
            doubt = self._doubt(part, place)
            yield replace(finding, score=max(0.0, finding.score - doubt)) if doubt else finding

    def _doubt(self, part: "_Part", finding: Finding) -> float:
        if part.technicality == 0 or finding.score >= CERTAIN:
            return 0.0
        return self._votes.doubt_technical(
            self._text[finding.start : finding.end], finding.entity_type, part.technicality
        )

    def _is_technical(self, part: "_Part", finding: Finding) -> bool:
        value = self._text[finding.start : finding.end]
        if finding.entity_type == "IP_ADDRESS" and self._numbers.holds(finding.start, finding.end):
            return True
        if finding.entity_type == "USERNAME" and is_host(value):
            return True
        if part.code.overlap(finding.start, finding.end):
            return not self._counts_in_code(finding, value)
        return (
            finding.entity_type in NAMES and part.level >= LEAST_TECHNICAL and self._names_program(part, finding, value)
        )

    def _counts_in_code(self, finding: Finding, value: str) -> bool:
        """True for values under labels, values with a form, and the names of people that nothing else can be."""
        if finding.entity_type in SHOWN_BY_FORM:
            # `@app.route` does not name an account.
            is_decorator = finding.entity_type == "USERNAME" and self._text[finding.start - 1 : finding.start] == "@"
            return not is_decorator
        if is_labelled(self._text, finding.start):
            return True
        return finding.entity_type == "PERSON" and self._votes.is_full_name(_names(value))

    def _names_program(self, part: "_Part", finding: Finding, value: str) -> bool:
        words = _names(value)
        if finding.score >= CERTAIN:
            return self._is_surely_program(part, finding, words)
        if words and self._are_terms(part, finding.entity_type, words):
            return True
        if not words or part.level < MAINLY_TECHNICAL:
            return False
        if finding.entity_type == "PERSON":
            return self._is_no_person(part, words)
        return not any(self._lexicon.has_any(("companies", *KINDS), word) for word in words)

    def _is_surely_program(self, part: "_Part", finding: Finding, words: Sequence[str]) -> bool:
        """True for what even a certain sign makes no name: an identifier by itself, and common words, as in `Robin Database`."""
        if len(words) < SEVERAL or part.level < MAINLY_TECHNICAL:
            return len(words) == 1 and self._is_identifier(words[0])
        if finding.entity_type == "PERSON":
            return self._is_common(part, words[-1])
        are_terms = all(self._is_term(part, word) or self._is_common(part, word) for word in words)
        return finding.score < FORMED and are_terms

    def _is_no_person(self, part: "_Part", words: Sequence[str]) -> bool:
        """True for words of which no one is a known name, unless several unknown ones stand together, and for `Robin Database`."""
        if len(words) == 1 or self._is_common(part, words[-1]):
            return not self._votes.is_name(words[-1])
        return not any(map(self._votes.is_name, words)) and not self._is_stranger(words)

    def _are_terms(self, part: "_Part", kind: str, words: Sequence[str]) -> bool:
        """True if each word is one. Two words of a person's name may both be in code: in a comment, in a link."""
        if kind == "PERSON" and len(words) > 1 and self._is_stranger(words):
            return False
        return all(self._is_term(part, word) or self._is_common(part, word) for word in words)

    def _is_stranger(self, words: Sequence[str]) -> bool:
        """True for several words that may only be somebody's name: in no dictionary, and written like a name."""
        return not any(self._lexicon.is_plain(word) or self._is_identifier(word) or word.isupper() for word in words)

    def _is_common(self, part: "_Part", word: str) -> bool:
        """True for a word of the dictionary that the text has in small letters, too."""
        is_name = self._lexicon.is_surname(word) or self._lexicon.is_common_given(word)
        return word.lower() in part.small and self._lexicon.is_plain(word) and not is_name

    def _is_identifier(self, word: str) -> bool:
        known = self._votes.is_name(word) or self._lexicon.has("companies", word)
        return not known and IDENTIFIER.fullmatch(word) is not None and FAMILY.fullmatch(word) is None

    def _is_term(self, part: "_Part", word: str) -> bool:
        """True for an identifier, a word that the text's code has, and an acronym."""
        if self._votes.is_name(word) or self._lexicon.has("companies", word):
            return False
        if self._is_identifier(word):
            return True
        folded = fold(word)
        if any(piece in part.code_words for piece in (folded, *folded.replace(".", "-").split("-"))):
            return True
        is_acronym = word.isupper() and len(word) <= LONGEST_ACRONYM
        return is_acronym and (word.lower() in part.small or part.level >= MAINLY_TECHNICAL)


class _Part:
    """One text: its code, the words of that and the words in small letters elsewhere, and how technical it is."""

    def __init__(self, text: str, start: int) -> None:
        places = code_places(text)
        self.code = Stretches((start + first, start + last) for first, last in places)
        self.technicality = technicality(text)
        # How sure it is that names of programs are written like names of people.
        self.level = technicality(text, FIRM_MARKS) if len(WORD.findall(text)) >= LEAST_WORDS else 0.0
        self.code_words: set[str] = set()
        self.small: set[str] = set()
        if self.level >= LEAST_TECHNICAL:
            # What code quotes may be somebody's data.
            bare = (QUOTED.sub(" ", _without_labelled(text[first:last])) for first, last in places)
            self.code_words = {fold(word) for code in bare for word in CODE_WORD.findall(code)}
            self.small = set(SMALL_WORD.findall(text))


def _without_labelled(code: str) -> str:
    """Code without the lines that have a label of people, accounts or secrets."""
    return "\n".join(line for line in code.splitlines() if not is_labelled(line, len(line)))


def _names(value: str) -> list[str]:
    tokens: Sequence[Token] = tokenise(value)
    return [token.bare for token in tokens if token.is_capitalised and not token.is_initial]
