"""A second reading of paragraphs in small letters or capitals: the same text, of the same length, with names written like names."""

import re
from collections.abc import Iterator, Sequence

from spacy.lang.en.stop_words import STOP_WORDS

from services.anonymization.recognise.checksums import is_iban
from services.anonymization.recognise.lexicon import Lexicon
from services.anonymization.recognise.tokens import Token, is_space, tokenise

LINE = re.compile(r"[^\n]+")
WORD = re.compile(r"[^\W\d_]{2,}")
# A line of which this share of words is in capitals is written in capitals.
CAPITALS_SHARE = 0.7
SHORTEST = 3
ORDINARY = ("never", "departments", "not_names", "ambiguous", "places", "person_labels", "products")
TITLES = frozenset(["mr", "mrs", "ms", "miss", "dr", "prof", "herr", "frau", "mme"])
# A shorter title of another language is one only before a full stop.
SHORTEST_TITLE = 3
POSTCODE = re.compile(r"\b[a-z]{1,2}\d[a-z\d]? ?\d[a-z]{2}\b")
IBAN = re.compile(r"\b[a-zA-Z]{2}\d{2}(?:[ -]?[a-zA-Z\d]{4}){2,7}(?:[ -]?[a-zA-Z\d]{1,3})?\b")
NATIONAL = re.compile(r"\b[a-z]{2} ?\d{2} ?\d{2} ?\d{2} ?[a-d]\b")
STREETS = (
    "street|st|road|rd|lane|ln|avenue|ave|drive|close|crescent|terrace|gardens|grove|mews|brow|wynd|croft|quay|wharf|boulevard|blvd"
    "|hollow|highway|parkway"
)
NUMBERED = re.compile(
    rf"\b\d{{1,5}}[a-z]?,? (?P<name>[a-z][\w'’-]+(?: [a-z][\w'’-]+){{0,2}}?) (?:{STREETS})\b\.?(?:,? [a-z][\w'’-]+"
    rf"(?=,? [a-z]{{1,2}}\d|,|\n))?"
)
WITH_UNIT = re.compile(
    r"\b\d{1,6} (?P<name>(?:\d{1,4} )?[^\W\d_][\w'’.-]+(?: [^\W\d_][\w'’.-]+){0,4}(?: \d{1,4}\.?)?)[ ,\n]{1,3}(?:suite"
    r"|apt\.?|unit|flat) \d{1,5}"
    r"(?:[ ,\n]{1,3}[^\W\d_][\w'’-]+){0,5}(?:[ ,\n]{1,3}\d{4,6})?"
)
LONGEST_COMPANY = 5


class Truecaser:
    """Rewrites names in small letters or capitals. Thread-safe."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon
        self._small_legal_forms = {
            form.lower(): form for form in lexicon.legal_forms if form.isalpha() and len(form) > 2 and form != "Company"
        }

    def rewrite(self, text: str) -> str | None:
        """The text with names capitalised, of the same length; None if nothing is to be rewritten."""
        letters = list(text)
        for start, end, word in (*self._capitals(text), *self._small_names(text), *self._small_forms(text)):
            if len(word) == end - start:
                letters[start:end] = word
        rewritten = "".join(letters)
        return rewritten if rewritten != text else None

    def _capitals(self, text: str) -> Iterator[tuple[int, int, str]]:
        """The words of lines in capitals: names capitalised, ordinary words in small letters."""
        for line in LINE.finditer(text):
            words = [match for match in WORD.finditer(line[0]) if len(match[0]) >= SHORTEST]
            if len(words) < 2 or sum(match[0].isupper() for match in words) < CAPITALS_SHARE * len(words):
                continue
            tokens = tokenise(line[0])
            for index, token in enumerate(tokens):
                if token.text.isupper() and len(token.bare) > 1 and token.text not in self._lexicon.legal_forms:
                    plain = self._lexicon.is_plain(token.bare.lower())
                    ordinary = plain and not self._is_name(token.bare) and not self._is_after_given(tokens, index)
                    word = token.text.lower() if ordinary else token.text.title()
                    yield line.start() + token.start, line.start() + token.end, word

    def _is_after_given(self, tokens: Sequence[Token], index: int) -> bool:
        """True for the `MINDEN` of `HEIKE MINDEN`: a word that follows a well-known given name."""
        follows = index > 0 and tokens[index].gap == " " and self._lexicon.is_common_given(tokens[index - 1].bare)
        return follows and not self._lexicon.has_any(("never", "departments", "not_names"), tokens[index].bare)

    def _small_names(self, text: str) -> Iterator[tuple[int, int, str]]:
        """Names in small letters, by the lists of names and the words around them."""
        tokens = tokenise(text)
        named = -1
        for index, token in enumerate(tokens):
            if not token.text[0].islower() or not token.bare.replace("-", "").isalpha():
                continue
            if self._is_title_or_company(tokens, index):
                yield token.start, token.end, token.text.title()
                continue
            follows = named == index - 1 and named >= 0 and is_space(token.gap)
            if follows and self._lexicon.has("particles", token.text):
                # `wim van den berg`
                named = index
                continue
            is_initial = (
                len(token.text) == 1 and token.text not in "aeioy" and follows and self._is_before_family(tokens, index)
            )
            is_name = len(token.bare) >= SHORTEST and (
                (follows and (self._may_be_family(token) or self._is_town_and_surname(token.bare)))
                or self._may_begin(tokens, index)
            )
            if is_initial or is_name:
                named = index
                yield token.start, token.end, token.text[0].upper() + token.text[1:]
                if index and self._is_title(tokens, index - 1):
                    title = tokens[index - 1]
                    yield title.start, title.end, title.text.title()

    def _is_title_or_company(self, tokens: Sequence[Token], index: int) -> bool:
        """True for the `ms` of `ms. Okafor`, and for a well-known company whose name is not an ordinary word."""
        word = tokens[index].bare
        if self._lexicon.has("companies", word):
            return not self._lexicon.is_plain(word)
        following = tokens[index + 1] if index + 1 < len(tokens) else None
        after_number = index > 0 and tokens[index - 1].text[-1].isdigit()
        return (
            word in TITLES
            and not after_number
            and following is not None
            and following.gap in (" ", ". ")
            and following.is_capitalised
        )

    def _is_title(self, tokens: Sequence[Token], index: int) -> bool:
        """True for a title in any language before a word, such as `mevrouw`, `sig.` and the `m.` of `m. quémeneur`."""
        word, gap = tokens[index].text.lower(), tokens[index + 1].gap
        if word in TITLES:
            after_number = index > 0 and tokens[index - 1].text.isdigit()
            return not (word == "ms" and after_number)
        if gap == ". ":
            return self._lexicon.has_title(word)
        is_address = self._lexicon.has_any(("titles_male", "titles_female"), word)
        return gap == " " and is_address and len(word) >= SHORTEST_TITLE

    def _is_titled(self, tokens: Sequence[Token], index: int) -> bool:
        """True for a word after a title, and after a title and particles: `mevrouw de haan`."""
        title = index - 1
        while title > 0 and self._lexicon.has("particles", tokens[title].text) and tokens[title + 1].gap == " ":
            title -= 1
        if not self._is_title(tokens, title):
            return False
        if title == index - 1 and tokens[index].gap != ". ":
            return self._may_be_family(tokens[index])
        return not self._lexicon.has_any(ORDINARY, tokens[index].bare) and not self._lexicon.has_title(
            tokens[index].text
        )

    def _may_begin(self, tokens: Sequence[Token], index: int) -> bool:
        """True if a name may begin here: a known given name, or any name after a title or a greeting."""
        word = tokens[index].bare
        before = tokens[index - 1].text.lower() if index and tokens[index].gap.strip(" ,") in ("", ".") else ""
        if before and self._is_titled(tokens, index):
            return True
        given = self._lexicon.given(word)
        if given is None or self._lexicon.has_any(ORDINARY, word):
            return False
        common, plain = self._lexicon.is_common_given(word), self._lexicon.is_plain(word)
        if self._is_before_family(tokens, index) and (common or not plain):
            return True
        following = tokens[index + 1] if index + 1 < len(tokens) else None
        if (
            given.locale == "en_GB"
            and following is not None
            and is_space(following.gap)
            and self._is_unknown(following)
        ):
            return True
        is_spoken_of = self._lexicon.has("before_name", before) or (
            following is not None and is_space(following.gap) and self._lexicon.has("after_name", following.text)
        )
        # The dictionary has well-known names, too.
        starts_line = index == 0 or "\n" in tokens[index].gap
        if starts_line and following is not None and following.gap.startswith((",", " -", "\n", ":")):
            return True
        # The dictionary has well-known names, too.
        return (common and (is_spoken_of or not plain or given.locale == "en_GB")) or (is_spoken_of and not plain)

    def _is_before_family(self, tokens: Sequence[Token], index: int) -> bool:
        """True if a surname follows, or an initial and a surname."""
        place = index + 1
        if place + 1 < len(tokens) and len(tokens[place].text) == 1 and tokens[place].text.isalpha():
            place += 1
        if place >= len(tokens) or tokens[place].gap.strip(" .") or not tokens[place].gap:
            return False
        word = tokens[place].bare
        return (
            self._is_family(word)
            or self._is_town_and_surname(word)
            or (len(word) > SHORTEST and word.isalpha() and self._may_be_family(tokens[place]))
        )

    def _may_be_family(self, token: Token) -> bool:
        """True for a known surname, or a word that is not in the dictionary."""
        if self._lexicon.has_any(("after_name", "before_name"), token.bare):
            return False
        return self._is_family(token.bare) or (
            not self._lexicon.is_plain(token.bare) and not self._lexicon.has_any(ORDINARY, token.bare)
        )

    def _is_unknown(self, token: Token) -> bool:
        """True for a word that is in no dictionary and no list of other things."""
        return (
            token.bare.isalpha()
            and len(token.bare) > SHORTEST
            and not self._lexicon.is_plain(token.bare)
            and self._may_be_family(token)
        )

    def _is_family(self, word: str) -> bool:
        return self._lexicon.is_surname(word) and not self._lexicon.has_any(ORDINARY, word)

    def _is_town_and_surname(self, word: str) -> bool:
        """True for a place that is a surname, too: after a given name, it is the surname."""
        return (
            self._lexicon.is_surname(word)
            and self._lexicon.has("places", word)
            and not self._lexicon.has("never", word)
        )

    def _is_name(self, word: str) -> bool:
        known = self._lexicon.is_surname(word) or self._lexicon.given(word) is not None
        return known and not self._lexicon.has_any(("never", "departments", "not_names"), word)

    def _small_forms(self, text: str) -> Iterator[tuple[int, int, str]]:
        """Streets, postcodes, accounts and companies in small letters."""
        for form in (POSTCODE, NATIONAL):
            yield from ((match.start(), match.end(), match[0].upper()) for match in form.finditer(text))
        for match in IBAN.finditer(text):
            if is_iban(match[0]) and match[0] != match[0].upper():
                yield match.start(), match.end(), match[0].upper()
        for form in (NUMBERED, WITH_UNIT):
            for match in form.finditer(text):
                if not any(self._lexicon.has("never", word) for word in match["name"].split()):
                    yield match.start("name"), match.end(), text[match.start("name") : match.end()].title()
        if not any(map(str.isupper, text)):
            yield from self._small_companies(text)

    def _small_companies(self, text: str) -> Iterator[tuple[int, int, str]]:
        """Words before a legal form, and words that are in no dictionary, in a text without any capital letter."""
        tokens = tokenise(text)
        for index, token in enumerate(tokens):
            if not token.text[0].isalpha():
                continue
            if token.text.isalpha() and len(token.bare) > SHORTEST and self._is_strange(tokens, index):
                yield token.start, token.end, token.text.title()
                yield from self._kinds_beside(tokens, index)
            if token.text in self._small_legal_forms and index:
                yield token.start, token.end, self._small_legal_forms[token.text]
                for place in range(index - 1, max(-1, index - 1 - LONGEST_COMPANY), -1):
                    if not (is_space(tokens[place + 1].gap) or tokens[place + 1].gap in (", ", " & ", " (", ") ")):
                        break
                    if tokens[place].text in STOP_WORDS or self._lexicon.has_any(
                        ("never", "before_name"), tokens[place].bare
                    ):
                        break
                    yield tokens[place].start, tokens[place].end, tokens[place].text.title()

    def _is_strange(self, tokens: Sequence[Token], index: int) -> bool:
        """True for a word that is in no dictionary, and for a surname after the kind of a company: `bakkerij noordzij`."""
        if not self._lexicon.is_plain(tokens[index].bare):
            return True
        after_kind = index > 0 and tokens[index].gap == " " and self._lexicon.has("kinds_first", tokens[index - 1].bare)
        return after_kind and self._is_family(tokens[index].bare)

    def _kinds_beside(self, tokens: Sequence[Token], index: int) -> Iterator[tuple[int, int, str]]:
        """The kind of a company before or after a word that is in no dictionary: `bakkerij noordzij`, `quillfeather foods`."""
        for place, gap, kinds in ((index - 1, index, "kinds_first"), (index + 1, index + 1, "kinds_last")):
            if 0 <= place < len(tokens) and tokens[gap].gap == " " and self._lexicon.has(kinds, tokens[place].bare):
                yield tokens[place].start, tokens[place].end, tokens[place].text.capitalize()
