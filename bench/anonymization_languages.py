"""Quality of the barrier in each language: `python -m bench.anonymization_languages`.

Two sets. `generated`: our templates with Faker's values of the language's country; the rules were tuned on `TUNING_SEED` and are reported on
`REPORTING_SEED`. `credits`: the authors and translators of manual pages as Debian ships them in the language, in the sentences that the translators
wrote; what counts as a name is what stands before a mail address in angle brackets. People who are named without an address count as false
alarms, so that precision is a lower bound. Text and names are by other hands. The set needs translated pages; without them it is left out.

`held` counts pages of manuals, by the folder of their language, in which a passage is told to be in a language that no rules cover. Pages of
covered languages must not be held; pages of other languages must, unless they are left in English.
"""

import gzip
import json
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

from stdnum.es import dni
from stdnum.it import codicefiscale
from stdnum.nl import bsn
from stdnum.pl import pesel
from stdnum.pt import nif

from bench.anonymization_measures import Counts, f2_interval, score_counts
from bench.anonymization_page import write_section
from bench.generated import MAKERS, SLOT, TYPES, Cast, Gold, nir, steuer_id
from services.anonymization.policy.policy_file import load_policy
from services.anonymization.recognise.detectors.definition import load_detectors
from services.anonymization.recognise.languages.definition import load_language
from services.anonymization.recognise.languages.detection import LanguageDetector
from services.anonymization.recognise.languages.loading import load_section_analyzer
from services.anonymization.recognise.languages.sections import SectionDetector
from services.anonymization.recognise.mentions import Mentions
from services.anonymization.review.estimates import clopper_pearson
from services.anonymization.settings import LANGUAGES as COVERED

TEMPLATES = Path(__file__).with_name("data") / "languages.txt"
MANUALS = Path("/usr/share/man")
REPORT = Path(__file__).parents[1] / ".tailor" / "bench" / "anonymization-languages.json"
LANGUAGES = ("de", "fr", "es", "it", "nl", "pl", "pt")
# Where Debian keeps the pages of a language.
FOLDERS = {"pt": ("pt", "pt_BR")}
TUNING_SEED, REPORTING_SEED = 11_000, 977_000
DRAWS = 12
MAX_PAGES = 400
# Pages of each language that are drawn for `held`, their least length, and how much of one is read.
HELD_PAGES, LEAST_PAGE, MOST_OF_PAGE = 60, 300, 20_000
SECTION = "anonymization-languages"
NAMED = re.compile(
    r"(?P<name>[^\W\d_a-zß-öø-ÿ][\w'’.-]*(?: (?:van|von|de|der|den|da|dos|[^\W\d_a-zß-öø-ÿ][\w'’.-]*)){1,3}) ?(?P<mail><[\w.+-]+@[\w.-]+\w>)"
)
# An accent as groff writes it: `\\('e`.
ACCENT = re.compile(r"\\\((?P<accent>['`^:~,])(?P<letter>\w)")
ACCENTS = {"'": "\u0301", "`": "\u0300", "^": "\u0302", ":": "\u0308", "~": "\u0303", ",": "\u0327"}
MARKUP = re.compile(r"\\f[BIRP]|\\-|\\&|\\ |\\\(.{2}|\\\*\W|^\.\w+ ?|<\.UE>", re.MULTILINE)
MAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)*\w")
# Words before an address that name nobody.
NO_PERSON = re.compile(r"\b(?:[^\W\d_a-zß-öø-ÿ]{4,}|Team|Debian|L10n|Projekt|Project|List|Header)\b")
LONGEST_PARAGRAPH = 600

# A folder of translated pages: `sv`, `pt_BR`.
LANGUAGE_FOLDER = re.compile(r"[a-z]{2}(?:_[A-Z]{2})?")

Place = tuple[int, int]
# Of a text: letters found rightly, letters found, letters to find.
Find = Callable[[str], list[Place]]


def _dni(chance: random.Random, _: Cast) -> str:
    digits = f"{chance.randint(10_000_000, 99_999_999)}"
    return digits + str(dni.calc_check_digit(digits))


def _codice(chance: random.Random, _: Cast) -> str:
    letters, month = "".join(chance.choices("BCDFGLMNPRSTVZ", k=6)), chance.choice("ABCDEHLMPRST")
    body = f"{letters}{chance.randint(10, 99)}{month}{chance.randint(10, 28)}F205"
    return body + str(codicefiscale.calc_check_digit(body))


def _bsn(chance: random.Random, _: Cast) -> str:
    while True:
        number = f"{chance.randint(100_000_000, 999_999_999)}"
        if bsn.is_valid(number):
            return number


def _pesel(chance: random.Random, _: Cast) -> str:
    body = f"{chance.randint(50, 99)}{chance.randint(1, 12):02d}{chance.randint(10, 28)}{chance.randint(1000, 9999)}"
    return body + str(pesel.calc_check_digit(body))


def _nif(chance: random.Random, _: Cast) -> str:
    body = f"2{chance.randint(1_000_000, 9_999_999)}"
    return body + str(nif.calc_check_digit(body))


# A number of the language's country with a valid checksum.
NATIONAL_IDS: dict[str, Callable[[random.Random, Cast], str]] = {
    "de": lambda _, cast: steuer_id(cast),
    "fr": lambda _, cast: nir(cast),
    "es": _dni,
    "it": _codice,
    "nl": _bsn,
    "pl": _pesel,
    "pt": _nif,
}


def birth(language: str, chance: random.Random) -> str:
    """A date of birth in digits or in words, as the language writes it."""
    born = date(chance.randint(1945, 2004), chance.randint(1, 12), chance.randint(1, 28))
    known = load_language(language)
    if known is None or chance.random() < 0.5:
        mark = {"nl": "-", "de": ".", "pl": "."}.get(language, "/")
        return born.strftime(f"%d{mark}%m{mark}%Y")
    names = known.months[1] if language == "pl" else known.months[0]
    month = names[born.month - 1]
    return {
        "de": f"{born.day}. {month} {born.year}",
        "es": f"{born.day} de {month} de {born.year}",
        "pt": f"{born.day} de {month} de {born.year}",
    }.get(language, f"{born.day} {month} {born.year}")


def generate(language: str, seed: int, draws: int = DRAWS) -> Iterator[Gold]:
    """Each template of the language, filled `draws` times."""
    parts = re.split(r"(?m)^%%% ", TEMPLATES.read_text(encoding="utf-8"))[1:]
    for number, part in enumerate(parts):
        name, body = part.split("\n", 1)
        if name.startswith(f"{language}-"):
            for draw in range(draws):
                yield _fill(name, language, body.strip(), seed + 1_000 * number + draw)


def _fill(name: str, language: str, body: str, seed: int) -> Gold:
    known = load_language(language)
    cast = Cast(known.locale if known else "en_GB", seed)
    makers = MAKERS | {
        "id": lambda person: NATIONAL_IDS[language](person.chance, person),
        "dob": lambda person: birth(language, person.chance),
    }
    text, spans, place = "", [], 0
    values: dict[str, str] = {}
    for slot in SLOT.finditer(body):
        kind = slot[1].rstrip("0123456789")
        text += body[place : slot.start()]
        values.setdefault(slot[1], " ".join(makers[kind](cast).split(" ")))
        first, _, last = values[slot[1]].partition(" ")
        value = {
            None: values[slot[1]],
            "last": last,
            "first": first,
            "mail": f"{_plain(first)}.{_plain(last)}@example.com",
        }[slot[2]]
        spans.append((len(text), len(text) + len(value), "EMAIL_ADDRESS" if slot[2] == "mail" else TYPES[kind]))
        text += value
        place = slot.end()
    return Gold(f"{name}/{seed}", language, text + body[place:], tuple(spans))


def _plain(word: str) -> str:
    return re.sub(r"[^a-z]", "", word.lower()) or "x"


def credits(language: str) -> Iterator[Gold]:
    """Sentences of manual pages that name people before their mail addresses, each once."""
    seen: set[str] = set()
    for folder in FOLDERS.get(language, (language,)):
        for page in sorted((MANUALS / folder).rglob("*.gz"))[:MAX_PAGES]:
            body = _plain_text(gzip.decompress(page.read_bytes()).decode(errors="replace"))
            for paragraph in re.split(r"\n[ \t]*\n|\n\.(?:PP|br|SH|TP)[^\n]*\n", body):
                text = " ".join(paragraph.split())
                names = tuple(match for match in NAMED.finditer(text) if not NO_PERSON.search(match["name"]))
                if names and text not in seen and len(text) <= LONGEST_PARAGRAPH:
                    seen.add(text)
                    spans = [(match.start("name"), match.end("name"), "PERSON") for match in names]
                    spans += [(match.start(), match.end(), "EMAIL_ADDRESS") for match in MAIL.finditer(text)]
                    yield Gold(f"{language}/{page.name}", language, text, tuple(spans))


def _plain_text(page: str) -> str:
    """A page without the marks of groff; written accents become letters."""
    body = ACCENT.sub(lambda mark: unicodedata.normalize("NFC", mark["letter"] + ACCENTS[mark["accent"]]), page)
    return MARKUP.sub(lambda mark: {"\\-": "-", "\\ ": " "}.get(mark[0], ""), body)


def barrier() -> Find:
    """The barrier with all mentions, as for documents: it tells the language by itself."""
    analyzer = load_section_analyzer(load_detectors(), load_policy(), LanguageDetector(), is_held=False)

    def find(text: str) -> list[Place]:
        analysis = analyzer.analyze(text)
        mentions = Mentions(analyzer.lexicon_of(section.reader for section in analysis.sections))
        findings = mentions.complete(text, analysis.findings, analyzer.policy.find_allowed(text))
        return [(finding.start, finding.end) for finding in findings]

    return find


def measure(
    find: Find, seed: int = REPORTING_SEED, languages: Iterable[str] = LANGUAGES
) -> dict[str, dict[str, dict[str, Any]]]:
    """Figures by language and set: precision, recall and F2 of characters, and recall by type. Sets without texts are left out."""
    figures: dict[str, dict[str, dict[str, Any]]] = {}
    for language in languages:
        sets = {"generated": list(generate(language, seed)), "credits": list(credits(language))}
        figures[language] = {name: score(golds, find) for name, golds in sets.items() if golds}
    return figures


def score(golds: Iterable[Gold], find: Find) -> dict[str, Any]:
    """Precision, recall and F2 over letters and digits, the 95 % interval of F2 over texts, recall by type, and the number of texts and values."""
    counts: list[Counts] = []
    by_type, of_type = Counter[str](), Counter[str]()
    values = 0
    for gold in golds:
        marked = _letters(gold.text, find(gold.text))
        wanted = _letters(gold.text, ((start, end) for start, end, _ in gold.spans))
        counts.append((len(marked & wanted), len(marked), len(wanted)))
        values += len(gold.spans)
        for start, end, kind in gold.spans:
            letters = _letters(gold.text, [(start, end)])
            by_type[kind] += len(letters & marked)
            of_type[kind] += len(letters)
    precision, recall, f2 = score_counts(counts)
    return {
        "texts": len(counts),
        "values": values,
        "precision": round(precision, 4),
        "recall": round(recall, 4),
        "f2": round(f2, 4),
        "f2_interval": f2_interval(counts),
        "recall_by_type": {kind: round(by_type[kind] / total, 4) for kind, total in sorted(of_type.items())},
    }


def held(detector: SectionDetector) -> dict[str, tuple[int, int]]:
    """By language, the pages of manuals that would be held, and all pages."""
    folders = {folder.name: folder for folder in sorted(MANUALS.iterdir()) if LANGUAGE_FOLDER.fullmatch(folder.name)}
    counts = {"en": _count_held(detector, [MANUALS / f"man{number}" for number in range(1, 9)])}
    for language in sorted({name[:2] for name in folders}):
        counts[language] = _count_held(detector, [folders[name] for name in folders if name[:2] == language])
    return {language: count for language, count in counts.items() if count[1]}


def _count_held(detector: SectionDetector, folders: Iterable[Path]) -> tuple[int, int]:
    files = sorted(file for folder in folders for file in folder.rglob("*.gz"))
    random.Random(1).shuffle(files)
    pages = [_plain_text(gzip.decompress(file.read_bytes()).decode(errors="replace")) for file in files[:HELD_PAGES]]
    pages = [page[:MOST_OF_PAGE] for page in pages if len(page) >= LEAST_PAGE]
    return sum(any(item.language not in COVERED for item in detector.sections(page)) for page in pages), len(pages)


def _letters(text: str, places: Iterable[Place]) -> set[int]:
    return {at for start, end in places for at in range(start, end) if text[at].isalnum()}


def render(figures: dict[str, dict[str, dict[str, Any]]]) -> str:
    """The table as Markdown."""
    rows = [
        "| language | set | texts | values | precision | recall | F2 | people | companies | addresses |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for language, sets in figures.items():
        for name, values in sets.items():
            low, high = values["f2_interval"]
            by_type = values["recall_by_type"]
            shown = [
                f"{values['precision']:.3f}",
                f"{values['recall']:.3f}",
                f"{values['f2']:.3f} [{low:.3f}, {high:.3f}]",
            ]
            shown += [f"{by_type[kind]:.3f}" if kind in by_type else "-" for kind in ("PERSON", "CLIENT", "ADDRESS")]
            rows.append(f"| {language} | {name} | {values['texts']} | {values['values']} | {' | '.join(shown)} |")
    return "\n".join(rows)


def render_held(counts: dict[str, tuple[int, int]]) -> str:
    """How many pages of each language are held, as Markdown: covered languages first."""
    rows = ["| language of the pages | covered | held | of pages | share |", "|---|---|---|---|---|"]
    for language in sorted(counts, key=lambda name: (name not in COVERED, name)):
        of_language, pages = counts[language]
        low, high = clopper_pearson(of_language, pages)
        share = f"{of_language / pages:.3f} [{low:.3f}, {high:.3f}]"
        rows.append(f"| {language} | {'yes' if language in COVERED else 'no'} | {of_language} | {pages} | {share} |")
    return "\n".join(rows)


def main() -> None:
    """Measure with the reporting seed, print the tables, and write the report and the page's section."""
    figures, counts = measure(barrier()), held(SectionDetector(LanguageDetector(), COVERED))
    tables = f"{render(figures)}\n\n{render_held(counts)}"
    print(tables)
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps({"sets": figures, "held": counts}, indent=2) + "\n", encoding="utf-8")
    write_section(tables, SECTION)


if __name__ == "__main__":
    main()
