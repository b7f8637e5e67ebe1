"""Generated documents of about two pages: reports, memos, mails and minutes in four languages, from runs of real words.

A sentence is put together from runs of three to six words, which come from the manual pages of this machine in the document's language
(or, if it has few, from Faker's words), and from names, dates and sums. So 13 neighbouring words seldom occur twice, as in real documents. The same number
gives the same document on the same machine. Three documents in a hundred repeat an earlier one: half of them with other names and figures,
half of them with two more sentences. One document in three has a section of boilerplate; four documents in 400 share a section that is not boilerplate.
"""

import gzip
import hashlib
import random
import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faker import Faker

from services.ingestion.spans import find_sections, limit_spans
from tailor.values import Span

DATA = Path(__file__).with_name("data") / "rows.toml"
MAN = Path("/usr/share/man")
# The languages of a hundred documents.
LANGUAGES = ("en",) * 50 + ("de",) * 25 + ("fr",) * 15 + ("es",) * 10
MAX_PAGES = 1_000
MIN_RUNS, MAX_RUNS = 20_000, 60_000
SLOT = re.compile(r"\{(\w+)\}")
WORD = re.compile(r"[^\W\d_]+")
FONT = re.compile(r"\\f(?:\[.*?\]|.)")
NEAR_DUPLICATE_EVERY, SHARED_EVERY, SHARED_GROUP, DISTANCE = 33, 100, 400, 7


@dataclass(frozen=True)
class Paper:
    """A document's clean text, as ingestion would store it. `source` is the label of its source."""

    name: str
    text: str
    language: str = ""
    source: str = ""
    spans: tuple[Span, ...] = ()

    @property
    def document_id(self) -> str:
        """An id from the name."""
        return f"doc_{hashlib.sha256(self.name.encode()).hexdigest()[:32]}"


@dataclass(frozen=True)
class Language:
    """The words of a language."""

    code: str
    words: dict[str, Any]
    runs: list[str]
    first_names: list[str]
    last_names: list[str]


@dataclass
class Author:
    """Writes one document. `text` chooses its form and words, `values` its names and figures."""

    language: Language
    text: random.Random
    values: random.Random
    people: list[str] = field(default_factory=list)

    def write(self, form: str) -> str:
        """A form with its slots filled."""
        return SLOT.sub(lambda slot: SLOTS[slot[1]](self), form)

    def sentences(self, count: int) -> str:
        """Sentences of a paragraph."""
        forms = self.language.words["sentences"]
        return " ".join(self.write(self.text.choice(forms)) for _ in range(count))

    def paragraphs(self, count: int) -> str:
        """Paragraphs of three to six sentences."""
        return "\n\n".join(self.sentences(self.text.randint(3, 6)) for _ in range(count))

    def name(self) -> str:
        """One of the few people of the document."""
        if not self.people:
            draw, language = self.values, self.language
            pairs = ((draw.choice(language.first_names), draw.choice(language.last_names)) for _ in range(4))
            self.people = [" ".join(pair) for pair in pairs]
        return self.values.choice(self.people)

    def date(self) -> str:
        """A date in the language's form."""
        draw, words = self.values, self.language.words
        return str(
            words["date"].format(
                day=draw.randint(1, 28), month=draw.choice(words["months"]), year=draw.randint(2008, 2026)
            )
        )

    def amount(self) -> str:
        """A sum of money."""
        return str(self.language.words["amount"].format(thousands=f"{self.values.randint(1, 9999) * 100:,}"))


def _capital(author: Author) -> str:
    run = author.text.choice(author.language.runs)
    return run[:1].upper() + run[1:]


SLOTS: dict[str, Callable[[Author], str]] = {
    "f": lambda author: author.text.choice(author.language.runs),
    "F": _capital,
    "name": Author.name,
    "org": lambda author: (
        f"{author.values.choice(author.language.last_names)} {author.values.choice(('Ltd', 'Group', 'AG', 'SA'))}"
    ),
    "date": Author.date,
    "amount": Author.amount,
    "percent": lambda author: f"{author.values.randint(2, 97)} %",
    "number": lambda author: str(author.values.randint(3, 900)),
    "count": lambda author: str(author.values.randint(1, 9)),
}


class Generator:
    """Documents by number."""

    def __init__(self) -> None:
        words = tomllib.loads(DATA.read_text(encoding="utf-8"))
        self.languages = {code: read_language(code, values) for code, values in words.items()}

    def papers(self, first: int, count: int) -> Iterator[Paper]:
        """Documents from a number on."""
        return (self.paper(number) for number in range(first, first + count))

    def paper(self, number: int) -> Paper:
        """The document with a number."""
        is_copy = number % NEAR_DUPLICATE_EVERY == NEAR_DUPLICATE_EVERY - 1
        model = number - DISTANCE if is_copy else number
        text = random.Random(f"text {model}")
        language = self.languages[text.choice(LANGUAGES)]
        is_revision = is_copy and number % 2 == 1
        author = Author(language, text, random.Random(f"values {model if is_revision else number}"))
        kind = text.choices(list(FORMS), WEIGHTS)[0]
        body = FORMS[kind](author)
        body += self._shared(number, author) + _boilerplate(author)
        body += f"\n\n{author.sentences(2)}" if is_revision else ""
        return Paper(f"generated {number}", body, language.code, kind, limit_spans(find_sections(body)))

    def _shared(self, number: int, author: Author) -> str:
        """A section that few other documents have too."""
        if number % SHARED_EVERY != 1:
            return ""
        text = random.Random(f"shared {number // SHARED_GROUP} {author.language.code}")
        other = Author(author.language, text, author.values)
        return f"\n\n## {text.choice(other.language.words['headings'])}\n\n{other.paragraphs(2)}"


def _boilerplate(author: Author) -> str:
    if author.text.random() > 1 / 3:
        return ""
    heading, text = author.text.choice(author.language.words["boilerplate"])
    return f"\n\n## {heading}\n\n{author.write(text)}"


def _sections(author: Author, count: int, paragraphs: int) -> str:
    headings = author.text.sample(author.language.words["headings"], count)
    return "\n\n".join(f"## {heading}\n\n{author.paragraphs(paragraphs)}" for heading in headings)


def _report(author: Author) -> str:
    title = author.write(author.text.choice(author.language.words["titles"]))
    return f"# {title}\n\n{author.sentences(2)}\n\n{_sections(author, author.text.randint(4, 6), 2)}"


def _figures(author: Author) -> str:
    head = author.language.words["table"]
    rows = [head, ["---"] * len(head)]
    rows += [
        [f"Q{quarter}", author.amount(), author.amount(), f"{author.values.randint(-20, 40)} %"]
        for quarter in range(1, 5)
    ]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"{_report(author)}\n\n{table}\n\n{author.paragraphs(1)}"


def _memo(author: Author) -> str:
    head = "\n".join(author.write(line) for line in author.language.words["memo"])
    return f"{head}\n\n{_sections(author, 4, 2)}"


def _mail(author: Author) -> str:
    words = author.language.words
    head = "\n".join(author.write(line) for line in words["mail"])
    return f"{head}\n\n{author.write(words['greeting'])}\n\n{author.paragraphs(author.text.randint(5, 9))}\n\n{author.write(words['closing'])}"


def _minutes(author: Author) -> str:
    words = author.language.words
    present = ", ".join(dict.fromkeys(author.name() for _ in range(4)))
    items = [
        f"## {author.write(words['item'])}\n\n{author.paragraphs(2)}\n\n"
        + "\n".join(f"- {author.write(words['action'])}" for _ in range(3))
        for _ in range(author.text.randint(4, 5))
    ]
    return "\n\n".join([f"# {author.write(words['minutes'])}", f"{words['present']}: {present}", *items])


FORMS: dict[str, Callable[[Author], str]] = {
    "report": _report, "figures": _figures, "memo": _memo, "mail": _mail, "minutes": _minutes,
}  # fmt: skip
WEIGHTS = (40, 15, 15, 15, 15)


def read_language(code: str, words: dict[str, Any]) -> Language:
    """The words of a language: runs of real words, and names."""
    faker: Any = Faker(words["locale"])
    people = next(part for part in faker.get_providers() if hasattr(part, "last_names"))
    lorem = next(part for part in faker.get_providers() if hasattr(part, "word_list"))
    runs = man_runs(code)
    common, draw = [word.lower() for word in lorem.word_list], random.Random(code)
    while len(runs) < MIN_RUNS:
        runs.append(" ".join(draw.choices(common, k=draw.randint(3, 6))))
    return Language(code, words, runs, sorted(people.first_names), sorted(people.last_names))


def man_runs(code: str) -> list[str]:
    """Runs of three to six lower-case words that occur in a line of the manual pages of a language, at most MAX_RUNS of them."""
    folder = MAN if code == "en" else MAN / code
    pages = sorted(folder.glob("man[1578]/*.gz"), key=lambda path: hashlib.sha256(path.name.encode()).digest())
    draw = random.Random(code)
    runs: set[str] = set()
    for page in pages[:MAX_PAGES]:
        runs.update(_runs_of(gzip.decompress(page.read_bytes()).decode("utf-8", "replace"), draw))
    ordered = sorted(runs)
    draw.shuffle(ordered)
    return ordered[:MAX_RUNS]


def _runs_of(page: str, draw: random.Random) -> Iterator[str]:
    for line in page.split("\n"):
        words = FONT.sub("", line).split() if line[:1] not in (".", "'") else []
        for start in range(0, len(words) - 2, 2):
            run = words[start : start + draw.randint(3, 6)]
            if len(run) > 2 and all(word.islower() and WORD.fullmatch(word) for word in run):
                yield " ".join(run)
