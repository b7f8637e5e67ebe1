"""Rules that every language shares, over the words and forms of its data file: one implementation, no copy per language."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

import phonenumbers

from services.anonymization.domain import Finding
from services.anonymization.recognise.languages.definition import LanguageDefinition, NumberForm
from services.anonymization.recognise.languages.streets import StreetForms
from services.anonymization.recognise.lexicon import Lexicon
from services.anonymization.recognise.recognisers.people import starts_office
from services.anonymization.recognise.tokens import Token, is_space, starts_sentence, tokenise

MOBILE = (phonenumbers.PhoneNumberType.MOBILE, phonenumbers.PhoneNumberType.FIXED_LINE_OR_MOBILE)
# Particles that are not articles in any language.
FAMILY_PARTICLES = ("Van", "Von", "Ter", "Ten")
PERSON, CLIENT, PHONE, BIRTH = "PERSON", "CLIENT", "PHONE_NUMBER", "DATE_OF_BIRTH"
MAX_NAME = 5
# An address with all its parts beats those of recognisers that find only some.
STREET_SCORE = 0.975
SHORTEST_SMALL_TITLE = 3
NOT_NAMES = ("never", "departments", "not_names", "person_labels", "nobody")
NOT_COMPANIES = ("never", "departments", "not_names")
# How far before a number its label may stand.
LABEL_REACH = 40
VALUE = r"(?P<value>(?=[^\s,;]*\d|[^\s,;]{1,8} [^\s,;]*\d)[A-Z\d][\w./-]*(?: (?:[A-Z][A-Za-z]{0,5} )?(?=[\w/-]*\d)[\w./-]*\w){0,6})"
NO = r"n[°ºr.]{1,2}|nº|n\.º"
JOIN = (
    rf"[ \t]?(?:{NO}|no\.?|num\.?|numer|nummer|número|numero|numéro|der|del|della|do|da|de|du)?[ \t]*"
    rf"(?::|=|-|–|ist|lautet|est|es|è|é|is|to|,)?[ \t]*(?:{NO})?[ \t]*"
)
NATIONAL = re.compile(r"(?<![\w.,/:+-])\(?\d{2,4}\)?(?:[ ./-]{1,2}\d{2,4}){2,4}(?![\w]|[.,/-]\d)")
DATE_LIKE = re.compile(r"\d{1,2}([ ./-])\d{1,2}\1\d{2,4}|\d{4}([./-])\d{1,2}\2\d{1,2}")
LEAST_DIGITS = {"NATIONAL_ID": 5, "ACCOUNT_NUMBER": 4, "CASE_NUMBER": 3, "EMPLOYEE_CODE": 3}
# Words for `and` in the names of firms.
AND = ("y", "e", "et", "und", "en", "i", "u")
BARE = re.compile(r"(?<![\w.,/:+-])\d{9,11}(?![\w]|[.,/-]\d)")
# Several initials without spaces, which are one word otherwise.
INITIALS = re.compile(r"(?<![\w.])(?:[^\W\d_a-zß-öø-ÿ]\.-?){2,4}[ ]?(?P<family>[^\W\d_a-zß-öø-ÿ][^\W\d_]+)")
# Firms named after two families, of which the second name begins in small letters: `Tammerijn & van Spreuwel`.
SMALL = r"(?:van|von|der|den|de|het|ten|ter|zu|dos|da|do)"
FAMILY = r"[^\W\d_a-zß-öø-ÿ][^\W\d_]+"
FAMILIES = re.compile(rf"(?<!\w)(?:{SMALL} )*{FAMILY}(?: {FAMILY})? & (?:{SMALL} )+{FAMILY}(?: {FAMILY})?")
QUOTED = ('"', "„", "«", "“")


class LanguageRecogniser:
    """Finds in a paragraph of one language what its words announce: people, companies, numbers, dates of birth, streets, phones."""

    def __init__(self, language: LanguageDefinition, lexicon: Lexicon) -> None:
        self._language = language
        self._lexicon = lexicon
        self._roles = frozenset(word.lower() for word in language.roles)
        self._speech = frozenset(language.speech)
        self._organisations = frozenset(word.lower() for word in language.organisation_words)
        self._firm_endings = frozenset(word.lower() for word in language.firm_endings)
        self._greeting = _greeting(language.greetings)
        self._born = _born(language)
        self._labels = {kind: _labelled(words) for kind, words in language.labels.items() if words}
        self._streets = StreetForms(language)

    def find(self, text: str) -> list[Finding]:
        """Findings, overlapping ones included."""
        tokens = tokenise(text)
        findings = [
            *self._find_greeted(text),
            *self._find_announced(tokens),
            *self._find_surnames(tokens),
            *self._find_particled(tokens),
            *self._find_firms(tokens),
            *self._find_initials(text),
            *(Finding(match.start(), match.end(), CLIENT, 0.7) for match in FAMILIES.finditer(text)),
        ]
        if any(map(str.isdigit, text)):
            finders: Iterable[Callable[[str], Iterator[Finding]]] = (
                self._find_numbers, self._find_labelled, self._find_births, self._find_phones,
            )  # fmt: skip
            findings += [finding for finder in finders for finding in finder(text)]
            findings += [Finding(start, end, "ADDRESS", STREET_SCORE) for start, end in self._streets.find(text)]
        return findings

    def _find_greeted(self, text: str) -> Iterator[Finding]:
        for match in self._greeting.finditer(text) if self._greeting else ():
            start = match.start("name")
            tokens = self._without_titles(tokenise(match["name"]))
            # `Monsieur le Directeur` names nobody.
            is_role = all(token.text.lower() in self._roles or self._is_particle(token) for token in tokens)
            if tokens and not is_role and all(self._may_be_name(token) or self._is_particle(token) for token in tokens):
                yield Finding(start + tokens[0].start, start + tokens[-1].end, PERSON, 0.75)

    def _find_initials(self, text: str) -> Iterator[Finding]:
        for match in INITIALS.finditer(text):
            if self._may_be_family(tokenise(match["family"])[0]):
                yield Finding(match.start(), match.end(), PERSON, 0.8)

    def _find_announced(self, tokens: Sequence[Token]) -> Iterator[Finding]:
        """Names after a title, a role or a verb of speech, and companies after the word for their kind."""
        for index, token in enumerate(tokens[:-1]):
            word, following = token.text.lower(), tokens[index + 1]
            spaced = is_space(following.gap)
            if self._is_title(token) and (spaced or following.gap == ". "):
                if starts_office(self._lexicon, tokens, index + 1):
                    continue
                last = self._run(tokens, index + 1, self._may_be_name)
                if last is not None:
                    yield Finding(following.start, tokens[last].bare_end, PERSON, 0.8)
            elif ((word in self._roles or self._is_kin(word)) and (spaced or following.gap in (", ", ": "))) or (
                token.text in self._speech and spaced
            ):
                first = index + 1
                while first < len(tokens) - 1 and self._lexicon.is_title(tokens[first].text):
                    first += 1
                last = self._run(tokens, first, self._may_be_relative if self._is_kin(word) else self._may_be_family)
                if last is not None:
                    yield Finding(tokens[first].start, tokens[last].bare_end, PERSON, 0.7)
            elif word in self._organisations and (spaced or following.gap.strip() in QUOTED):
                last = self._run(tokens, index + 1, self._may_be_company)
                if last is not None:
                    yield Finding(following.start, tokens[last].bare_end, CLIENT, 0.6)

    def _is_kin(self, word: str) -> bool:
        return self._lexicon.has("kin", word)

    def _may_be_relative(self, token: Token) -> bool:
        """True for a name after a word for a relative. In German, nouns are capitalised, so that only unusual words count."""
        if self._lexicon.capitalises_nouns:
            return self._may_be_family(token)
        return self._may_be_name(token) and token.text.lower() not in self._roles and not self._is_kin(token.text)

    def _find_particled(self, tokens: Sequence[Token]) -> Iterator[Finding]:
        """`huisarts Van der Veen`: a particle with a capital letter within a sentence begins a surname."""
        for index in range(1, len(tokens) - 1):
            if (
                tokens[index].text not in FAMILY_PARTICLES
                or not is_space(tokens[index].gap)
                or starts_sentence(tokens, index)
            ):
                continue
            last = self._run(tokens, index + 1, self._may_be_name)
            if last is not None and not self._lexicon.has("places", tokens[last].bare):
                yield Finding(tokens[index].start, tokens[last].bare_end, PERSON, 0.5)

    def _is_title(self, token: Token) -> bool:
        """True for a title, also in small letters if it is more than one or two."""
        return self._lexicon.is_title(token.text) or (
            len(token.text) >= SHORTEST_SMALL_TITLE and self._lexicon.has_title(token.text)
        )

    def _find_surnames(self, tokens: Sequence[Token]) -> Iterator[Finding]:
        """Surnames by themselves, in languages whose words in the dictionary are not such names."""
        for index, token in enumerate(tokens):
            if not self._is_lone_surname(token) or starts_sentence(tokens, index):
                continue
            yield Finding(token.start, token.bare_end, PERSON, 0.4)

    def _find_firms(self, tokens: Sequence[Token]) -> Iterator[Finding]:
        """Firms named after people: `Weber & Söhne`, `Burcardo e figli S.p.A.`"""
        for index in range(1, len(tokens)):
            if tokens[index].text.lower() not in self._firm_endings:
                continue
            joined = tokens[index - 1].text in AND
            name = index - 2 if joined else index - 1
            if name < 0 or not (joined or tokens[index].gap == " & ") or not self._may_be_name(tokens[name]):
                continue
            first = name
            while (
                first > 0
                and tokens[first].gap in (" ", ", ")
                and self._may_be_name(tokens[first - 1])
                and name - first < MAX_NAME
            ):
                first -= 1
            last = index
            if (
                index + 1 < len(tokens)
                and tokens[index + 1].text in self._lexicon.legal_forms
                and tokens[index + 1].gap == " "
            ):
                last = index + 1
            yield Finding(tokens[first].start, tokens[last].bare_end, CLIENT, 0.75)

    def _is_lone_surname(self, token: Token) -> bool:
        word = token.bare
        if not token.is_capitalised or token.text.isupper() or len(word) < 4 or not self._lexicon.is_surname(word):
            return False
        if self._lexicon.has_any((*NOT_NAMES, "places", "products", "kinds_first", "kinds_last", "ambiguous"), word):
            return False
        return not self._lexicon.is_plain(word)

    def _run(self, tokens: Sequence[Token], first: int, may_belong: Callable[[Token], bool]) -> int | None:
        """The last token of the capitalised run that begins at `first`, or None."""
        last = None
        for place in range(first, min(len(tokens), first + MAX_NAME)):
            token = tokens[place]
            after_initial = place > first and tokens[place - 1].is_initial and token.gap in (". ", ".")
            if place > first and not is_space(token.gap) and not after_initial:
                break
            if self._lexicon.has("particles", token.text) and place + 1 < len(tokens):
                continue
            if not token.is_capitalised or not may_belong(token):
                break
            last = place
        return last

    def _may_be_family(self, token: Token) -> bool:
        """True unless the word is ordinary. In German, nouns are capitalised, so that only unusual words and known names count."""
        if not self._may_be_name(token) or self._lexicon.has_any(("places", "kinds_first", "kinds_last"), token.bare):
            return False
        known = self._lexicon.may_be_surname(token.bare) or self._lexicon.given(token.bare) is not None
        return known or token.is_initial or not self._lexicon.is_plain(token.bare)

    def _may_be_company(self, token: Token) -> bool:
        return not self._lexicon.has_any(NOT_COMPANIES, token.bare) and not (
            self._lexicon.capitalises_nouns and self._lexicon.is_plain(token.bare) and not self._lexicon.is_surname(token.bare)
        )  # fmt: skip

    def _may_be_name(self, token: Token) -> bool:
        letters = token.text.replace("-", "").replace("'", "").replace("’", "").replace(".", "")
        return token.is_capitalised and letters.isalpha() and not self._lexicon.has_any(NOT_NAMES, token.bare)

    def _is_particle(self, token: Token) -> bool:
        return self._lexicon.has("particles", token.text) and not token.is_capitalised

    def _without_titles(self, tokens: Sequence[Token]) -> Sequence[Token]:
        while tokens and self._lexicon.has_title(tokens[0].text):
            tokens = tokens[1:]
        return tokens

    def _find_numbers(self, text: str) -> Iterator[Finding]:
        for number in self._language.numbers:
            for match in number.form.finditer(text):
                if (number.is_telling or _has_label(text, match.start(), number)) and number.is_valid(match[0]):
                    yield Finding(match.start(), match.end(), number.entity_type, 0.97)

    def _find_labelled(self, text: str) -> Iterator[Finding]:
        for kind, form in self._labels.items():
            for match in form.finditer(text):
                value = match["value"].rstrip("./-")
                if sum(map(str.isdigit, value)) >= LEAST_DIGITS.get(kind, 3) and not DATE_LIKE.fullmatch(value):
                    yield Finding(match.start("value"), match.start("value") + len(value), kind, 0.95)

    def _find_births(self, text: str) -> Iterator[Finding]:
        if self._born is not None:
            for match in self._born.finditer(text):
                yield Finding(match.start("date"), match.end("date"), BIRTH, 0.98)

    def _find_phones(self, text: str) -> Iterator[Finding]:
        """National numbers in groups, as the language's countries write them."""
        for match in NATIONAL.finditer(text):
            if not DATE_LIKE.fullmatch(match[0]) and self._is_phone(match[0]):
                yield Finding(match.start(), match.end(), PHONE, 0.8)
        for match in BARE.finditer(text):
            if self._is_phone(match[0], MOBILE):
                yield Finding(match.start(), match.end(), PHONE, 0.5)

    def _is_phone(self, value: str, kinds: Sequence[int] = ()) -> bool:
        """True for a number of the language's countries; with `kinds`, for one of them in the first country."""
        for region in self._language.phone_regions[: 1 if kinds else None]:
            try:
                number = phonenumbers.parse(value, region)
                if phonenumbers.is_valid_number(number) and (not kinds or phonenumbers.number_type(number) in kinds):
                    return True
            except phonenumbers.NumberParseException:
                continue
        return False


def _has_label(text: str, start: int, number: NumberForm) -> bool:
    before = text[max(0, start - LABEL_REACH) : start].lower()
    return any(re.search(rf"(?<!\w){re.escape(label.lower())}(?!\w)", before) for label in number.labels)


def _greeting(greetings: Sequence[str]) -> re.Pattern[str] | None:
    if not greetings:
        return None
    words = "|".join(sorted(map(re.escape, greetings), key=len, reverse=True))
    return re.compile(
        rf"(?:^|(?<=\n))[ \t>]{{0,4}}(?i:{words}),? (?P<name>[^\W\d_][\w'’.-]*(?:[ ][^\W\d_][\w'’.-]*){{0,4}}?)"
        r"(?=[ \t]*(?:[,!:–—]|\.?\n|\.?$| -))"
    )


def _labelled(words: Sequence[str]) -> re.Pattern[str]:
    labels = "|".join(sorted((re.escape(word) for word in words), key=len, reverse=True))
    return re.compile(rf"(?<!\w)(?i:(?:{labels})(?!\w){JOIN}){VALUE}")


def _born(language: LanguageDefinition) -> re.Pattern[str] | None:
    """A date within some words after one for a birth, or a date before it."""
    if not language.born:
        return None
    words = "|".join(sorted(map(re.escape, language.born), key=len, reverse=True))
    months = "|".join(sorted({name for names in language.months for name in names}, key=len, reverse=True))
    date = (
        rf"(?:\d{{1,2}}(?:er|º|°|\.)?[ .-]{{1,2}}(?:de |d['’])?(?:{months})\.?(?:,| de| del| do| r\.)?[ -]\d{{4}}"
        r"|\d{1,2}[./-][ ]?\d{1,2}[./-][ ]?\d{4}|\d{1,2}[./-]\d{1,2}[./-]\d{2}|\d{4}[-/.]\d{2}[-/.]\d{2})(?!\d)"
    )
    return re.compile(rf"(?<!\w)(?i:(?:{words}))(?!\w)[^.\n\d]{{0,60}}?(?P<date>(?i:{date}))")
