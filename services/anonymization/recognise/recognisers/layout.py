"""Names and numbers recognised by layout: labels, columns of a table, lists of people, greetings and closings of letters."""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from services.anonymization.domain import Finding
from services.anonymization.recognise.lexicon import Lexicon, fold
from services.anonymization.recognise.recognisers.patterns import DATE
from services.anonymization.recognise.tokens import Token, is_space, tokenise

PERSON = "PERSON"
LINE = re.compile(r"[^\n]+")
LABEL = re.compile(
    r"(?:^|(?<=[\n|;]))[ \t>*_#-]*(?P<label>[^\W\d][\w '’/&()-]{0,40}?)[*_]{0,2}[ \t]?(?::[*_]{0,2}|\t)[ \t]*(?P<value>[^\n|]+)"
)
PART = re.compile(r"[^,;•·|]+")
NOTE = re.compile(r"\([^)]*\)|<[^>]*>|\[[^\]]*\]")
FROM_TO = ("from", "to", "cc", "bcc", "von", "an", "kopie")
MAX_NAME = 5
SPEAKER = re.compile(
    r"(?:^|(?<=\n))[ \t>*-]{0,4}(?:\[[^\]\n]{4,30}\] ?"
    r"|\d{1,2}:\d{2}(?::\d{2})? ?-? ?)?(?P<name>[^\W\d_a-z][\w'’-]+(?: [^\W\d_a-z][\w'’.-]*){0,2})(?= ?: )"
)
GREETED = re.compile(
    r"(?:^|(?<=\n))[ \t>]{0,4}(?:Dear|Hi|Hello|Hey|Hiya|Hallo|Lieber?|Liebes|Moin|Guten (?:Tag|Morgen)"
    r"|Good (?:morning|afternoon|evening)|Morning|Cher|Chère|Bonjour|Sehr geehrter?)"
    r",? (?P<name>[^\W\d_a-z][\w'’.-]*(?: (?:van|von|de|der|du|le|la|el|[^\W\d_a-z][\w'’.-]*)){0,3})(?=[ \t]*(?:[,!:–—]|\.?\n|$| -))"
)
# `git config user.name "Ada Quillfeather"`, `author = "Ada Quillfeather"`
KEYED = re.compile(
    r"(?i:\b(?:user\.name|(?:user|full|real|display)_?name|authors?|maintainers?|committer|owner|reviewers?|assignee))[\"']?[ \t]{0,3}"
    r"(?:=>|[:=]|[ \t])[ \t]{0,3}\[?[\"'](?P<value>[^\W\d_a-z][\w'’.-]{0,30}(?: [^\W\d_][\w'’.-]{0,30}){1,3})[\"']"
)
NOT_GREETED = ("never", "not_names", "departments", "nobody", "places", "person_labels")
COLUMNS = {
    "DATE_OF_BIRTH": re.compile(
        r"(?i)\b(?:d\.?o\.?b|date of birth|birth ?date|born|geburtsdatum|geb\.?(?: ?am)?|geboren"
        r"|date de naissance|fecha de nacimiento|data di nascita|geboortedatum|data urodzenia|data de nascimento)\b"
    ),
    "NATIONAL_ID": re.compile(
        r"(?i)\b(?:ssn|social security|ni(?:no| no| number)|national insurance|nhs|passport|licen[cs]e|tax id"
        r"|steuer-?id|national id|mrn|patient id)"
    ),
    "EMPLOYEE_CODE": re.compile(r"(?i)\b(?:employee|emp|staff|payroll|personnel|badge|personal)[ -.]*(?:id|no|number|nr|code|nummer)"),
    "ACCOUNT_NUMBER": re.compile(r"(?i)\b(?:account|acct|sort code|kontonummer|policy|member(?:ship)?)[ .-]*(?:no|number|id|code|nr)?\b"),
    "PHONE_NUMBER": re.compile(r"(?i)^(?:tel|phone|mobile|cell|telefon|handy|contact no|contact number)"),
    "ADDRESS": re.compile(r"(?i)^(?:home |postal |street |delivery )?(?:address|anschrift|adresse)$"),
    PERSON: re.compile(
        r"(?i)^(?:(?:full|first|last|given|family|middle|employee|staff|customer|patient|tenant|contact|driver"
        r"|client|account|pupil|student|member|guest) ?name|names?|surname|forename|vorname|nachname|employee"
        r"|driver|tenant|patient|attendee|participant|mitarbeiter|guest|passenger|owner|assignee|contact|who"
        r"|action owner|responsible|author|approver|manager|supervisor|engineer|technician"
        r"|nom|prénom|nom et prénom|nombre|apellido|nombre y apellidos|nome|cognome|nome e cognome|naam|voornaam|achternaam|imię|nazwisko"
        r"|imię i nazwisko|nome completo|apelido|sobrenome|medewerker|empleado|dipendente|pracownik|salarié|funcionário)s?$"
    ),
}  # fmt: skip


class LayoutRecogniser:
    """Finds values by their position. Works on the whole text and needs no model."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon

    def find(self, text: str) -> list[Finding]:
        """Values, without their labels."""
        finders = (
            self._find_labelled,
            self._find_keyed,
            self._find_speakers,
            self._find_greeted,
            self._find_in_columns,
            self._find_in_closings,
        )
        return [finding for finder in finders for finding in finder(text)]

    def _find_labelled(self, text: str) -> Iterator[Finding]:
        for match in LABEL.finditer(text):
            known = self._is_person_label(match["label"])
            start = match.start("value")
            for part in PART.finditer(NOTE.sub(lambda note: "," * len(note[0]), match["value"])):
                name = self._name(text, start + part.start(), start + part.end(), known)
                if name is not None:
                    yield name
                elif not known:
                    break

    def _find_keyed(self, text: str) -> Iterator[Finding]:
        """Quoted names in settings and commands."""
        for match in KEYED.finditer(text):
            if self._looks_named(tokenise(match["value"]), known=True):
                yield Finding(match.start("value"), match.end("value"), PERSON, 0.8)

    def _find_speakers(self, text: str) -> Iterator[Finding]:
        """Speakers in a chat, such as `Kev: did you see ...`."""
        for match in SPEAKER.finditer(text):
            words = match["name"].split()
            named = self._lexicon.given(words[0]) is not None and not self._lexicon.has("person_labels", words[0])
            if named and not any(self._is_other(word) for word in words) and self._is_speaker(words):
                yield Finding(match.start("name"), match.end("name"), PERSON, 0.5)

    def _is_speaker(self, words: list[str]) -> bool:
        if self._lexicon.is_common_given(words[0]) or not self._lexicon.is_plain(words[0]):
            return not self._lexicon.capitalises_nouns or not self._lexicon.is_plain(words[-1])
        return len(words) > 1 and self._lexicon.is_surname(words[-1])

    def _find_greeted(self, text: str) -> Iterator[Finding]:
        """The name that a letter greets."""
        for match in GREETED.finditer(text):
            start = match.start("name")
            tokens = self._without_title(tokenise(match["name"]))
            words = [token.bare for token in tokens if not token.is_initial]
            if words and not any(self._lexicon.has_any(NOT_GREETED, word) for word in words):
                yield Finding(start + tokens[0].start, start + tokens[-1].end, PERSON, 0.7)

    def _is_person_label(self, label: str) -> bool:
        words = fold(label.strip()).replace("(s)", "")
        ends = (words, words.split(" (")[0], " ".join(words.split()[-2:]), words.split()[-1])
        return any(self._lexicon.has("person_labels", label) for label in (words, ends[1], ends[2])) or (
            len(words.split()) <= 3 and self._lexicon.has("person_labels", ends[3]) and ends[3] not in FROM_TO
        )

    def _name(self, text: str, start: int, end: int, known: bool) -> Finding | None:
        """The name that fills [start, end), or begins it if a label announces one."""
        tokens = self._without_title(tokenise(text[start:end]))
        run = []
        for place, token in enumerate(tokens):
            joined = place == 0 or is_space(token.gap) or (tokens[place - 1].is_initial and token.gap in (". ", "."))
            if not joined or not (token.is_capitalised or self._lexicon.has("particles", token.text)):
                break
            run.append(token)
        rest = text[start + run[-1].end : end].strip(" .\t*_") if run else ""
        if not run or len(run) > MAX_NAME or (rest and not rest.startswith(("–", "-", "(", "/", ":", "'s", "’s"))):
            return None
        if not self._looks_named(run, known):
            return None
        return Finding(start + run[0].start, start + run[-1].bare_end, PERSON, 0.8 if known else 0.55)

    def _without_title(self, tokens: Sequence[Token]) -> Sequence[Token]:
        while len(tokens) > 1 and self._lexicon.has_title(tokens[0].text):
            tokens = tokens[1:]
        return tokens

    def _looks_named(self, run: Sequence[Token], known: bool) -> bool:
        words = [token.bare for token in run if token.is_capitalised and not token.is_initial]
        if any(any(letter.isdigit() for letter in token.text) for token in run):
            return False
        if not words or any(self._is_other(word) for word in words):
            return False
        given = any(self._lexicon.is_common_given(word) for word in words)
        strange = [word for word in words if not self._lexicon.is_plain(word)]
        if known:
            named = [word for word in words if self._lexicon.is_surname(word) or self._lexicon.given(word) is not None]
            unsure = self._lexicon.capitalises_nouns and len(words) == 1
            initials = any(token.is_initial for token in run)
            short = words[0].isupper() and len(words[0]) <= 4 and len(words) == 1
            return not short and bool(given or strange or (named and not unsure) or (initials and len(words) < 3))
        return len(words) > 1 and given and (bool(strange) or self._lexicon.is_surname(words[-1]))

    def _is_other(self, word: str) -> bool:
        lists = ("never", "not_names", "departments", "products", "kinds_last", "places", "person_labels")
        return word in self._lexicon.legal_forms or self._lexicon.has_any(lists, word)

    def _find_in_columns(self, text: str) -> Iterator[Finding]:
        """Cells in columns with a known head, in Markdown tables and in comma- or tab-separated values."""
        heads: dict[int, str] = {}
        mark = ""
        for line in LINE.finditer(text):
            row = line[0]
            separator = next((mark for mark in ("|", "\t", ";", ",") if row.count(mark) >= 2), "")
            if separator == "" or separator != mark:
                mark = separator
                heads = self._heads(row, separator) if separator else {}
                continue
            for place, (start, cell) in enumerate(_cells(row, separator)):
                if (kind := heads.get(place)) and (value := self._cell(kind, cell, line.start() + start)):
                    yield value

    def _heads(self, row: str, separator: str) -> dict[int, str]:
        cells = [cell.strip(' *_"') for _, cell in _cells(row, separator)]
        if separator in ",;" and any(len(cell.split()) > 3 for cell in cells):
            return {}
        kinds = (
            (place, kind) for place, cell in enumerate(cells) for kind, form in COLUMNS.items() if form.search(cell)
        )
        heads: dict[int, str] = {}
        for place, kind in kinds:
            heads.setdefault(place, kind)
        return heads

    def _cell(self, kind: str, cell: str, start: int) -> Finding | None:
        value = cell.strip(' *_"')
        begin = start + cell.find(value)
        # A label with its value names nobody: the lines are prose with commas, and no table.
        if not value or set(value) <= set("-: –—") or (kind == PERSON and ":" in value):
            return None
        if kind == PERSON:
            run = self._without_title(tokenise(value))
            lists = ("never", "not_names", "departments", "products", "person_labels")
            plain = all(self._lexicon.is_plain(token.bare) for token in run) and not any(
                self._lexicon.is_surname(token.bare) or self._lexicon.given(token.bare) for token in run
            )
            unfit = any(self._lexicon.has_any(lists, token.bare) for token in run)
            if not run or len(run) > MAX_NAME or plain or unfit or not run[-1].text[0].isalpha():
                return None
            return Finding(begin + run[0].start, begin + run[-1].end, PERSON, 0.8)
        if kind == "DATE_OF_BIRTH" and not re.fullmatch(f"(?i:{DATE})", value):
            return None
        if kind == "ADDRESS":
            return Finding(begin, begin + len(value), kind, 0.9) if any(map(str.isdigit, value)) else None
        enough = sum(map(str.isdigit, value)) >= 3 and len(value) <= 30
        return Finding(begin, begin + len(value), kind, 0.9) if enough else None

    def _find_in_closings(self, text: str) -> Iterator[Finding]:
        """Up to four words that fill the line after `Kind regards,`."""
        lines = [line for line in LINE.finditer(text) if line[0].strip()]
        for before, line in pairwise(lines):
            words = fold(before[0].strip(" ,.!-–>*_"))
            closes = len(words) <= 40 and any(
                words == closing or words.endswith(f" {closing}") for closing in self._closing_words
            )
            if closes and (name := self._signature(line)):
                yield name

    @property
    def _closing_words(self) -> frozenset[str]:
        return self._lexicon.lists["closings"]

    def _signature(self, line: re.Match[str]) -> Finding | None:
        value = re.split(r"[,|(<–]| - ", line[0].strip(" >*_"))[0]
        tokens = self._without_title(tokenise(value))
        if (
            not tokens
            or len(tokens) > 4
            or not all(token.is_capitalised or self._lexicon.has("particles", token.text) for token in tokens)
        ):
            return None
        if any(self._is_other(token.bare) for token in tokens if not token.is_initial):
            return None
        begin = line.start() + line[0].find(value)
        return Finding(begin + tokens[0].start, begin + tokens[-1].end, PERSON, 0.8)


def _cells(row: str, separator: str) -> Iterator[tuple[int, str]]:
    start = 0
    for cell in row.split(separator):
        yield start, cell
        start += len(cell) + 1
