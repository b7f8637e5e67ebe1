"""How rows were made before every document taught: a frozen copy, for comparison only.

The rules of `services/synthetic/rows/structure.py` and `document_rows.py` at commit 2c6288d, with their limits: at most 320 estimated tokens (characters
/ 4) for each row, at least 24 for each answer, two rows for each document. Rows from examples, deliverables and a teacher, which the comparison does not use, are left
out. Nothing else may use this module, and it is not to be improved.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from bench.rows_old_structure import OldSection, Outline, key_facts, lower_first, parse, sentences, with_article

MAX_ROW_TOKENS, MIN_ANSWER_TOKENS, ROWS_PER_DOCUMENT = 320, 24, 2
# How likely a candidate is chosen before the others of its document.
WEIGHTS = {"board_summary": 4.0, "document": 2.0, "section": 1.0, "question": 0.6}
PROMPT_SHARE = 0.5
ASKED_VERBS = ("is", "are", "was", "were", "must", "will", "covers", "needs", "asks", "requires")
SMALL_WORDS = frozenset({"the", "a", "an", "of", "on", "in", "for", "and", "to", "at", "by", "with", "our", "this"})
MAX_TITLE_CHARS = 160


@dataclass(frozen=True)
class OldRow:
    """One row: its task, prompt and answer."""

    origin: str
    document_id: str
    prompt: str
    completion: str

    @property
    def row_id(self) -> str:
        """An id by content."""
        parts = [self.origin, self.document_id, "", self.prompt, self.completion, "structure"]
        return f"row_{fingerprint(*parts)[:32]}"

    @property
    def tokens(self) -> int:
        """Estimated tokens of prompt and answer."""
        return estimate_tokens(self.prompt + self.completion)


def estimate_tokens(text: str) -> int:
    """Characters / 4, rounded up."""
    return -(-len(text) // 4)


def fingerprint(*parts: object) -> str:
    """SHA-256 of the parts, hexadecimal."""
    return hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).hexdigest()


def make_rows(document_id: str, text: str, source: str) -> list[OldRow]:
    """The rows of one document. `source` is the label of its source."""
    outline = parse(text)
    rows = [OldRow(task, document_id, prompt, answer) for task, prompt, answer in _candidates(source, outline)]
    fitting = sorted((row for row in rows if _fits(row)), key=_rank)
    # One question per document, because its prompt contains a passage and costs more than it teaches.
    questions = [row for row in fitting if row.origin == "question"]
    return [row for row in fitting if row not in questions[1:]][:ROWS_PER_DOCUMENT]


def _candidates(source: str, outline: Outline) -> Iterator[tuple[str, str, str]]:
    """Yield (task, prompt, answer)."""
    form, topic = form_and_topic(source, outline)
    if not topic:
        return
    if "summary" in form:
        yield _whole("board_summary", form, topic, outline)
    elif outline.headers or not outline.sections:
        yield _whole("document", form, topic, outline)
    if outline.headers and outline.sections:
        yield _opening(form, topic, outline)
    for section in outline.sections:
        yield _section(section, form, topic, outline)
    for section in outline.sections:
        yield from _questions(section)


def form_and_topic(source: str, outline: Outline) -> tuple[str, str]:
    """The form of a document, such as `engagement report`, and its topic; the topic is empty if it is not clear."""
    title = outline.title[:MAX_TITLE_CHARS]
    if outline.headers:
        mail = "@" in outline.header("from") + outline.header("to") or bool(outline.header("cc"))
        return ("mail" if mail else "memo"), lower_first(title, outline.text)
    before, colon, after = title.partition(":")
    if colon and after.strip() and len(before.split()) <= 4:
        return before.strip().lower(), lower_first(after.strip(), outline.text)
    if any("summary" in value for value in (title.lower(), source)):
        return "summary", title
    first = next(iter(sentences(outline.lead)), "")
    if not outline.sections and title and len(title.split()) <= 6:
        return lower_first(title, title.lower()), first.rstrip(".")
    return "document", title


def _section(section: OldSection, form: str, topic: str, outline: Outline) -> tuple[str, str, str]:
    heading, noun = section.heading, with_article(form)
    asks = (
        f"Write the {heading} section of {noun} on {topic}.",
        f"Write the {heading} section for {noun}: {topic}.",
        f"Draft the {heading} section of {noun} on {topic}.",
        f"{heading} section, please, for {noun} on {topic}.",
    )
    choice = int(fingerprint(outline.title, heading)[:8], 16)
    limit = (0, 2, 3)[choice // 4 % 3]
    return "section", _with_facts(asks[choice % 4], key_facts(section.text, limit), section.text), section.text


def _opening(form: str, topic: str, outline: Outline) -> tuple[str, str, str]:
    first = outline.sections[0]
    head = "\n".join(f"{name}: {value}" for name, value in outline.headers)
    answer = f"{head}\n\n## {first.heading}\n\n{first.text}"
    ask = f"Write the opening of {with_article(form)} (header lines and the {first.heading} section)"
    return "section", f"{ask}{_parties(outline)}, on {topic}.", answer


def _whole(origin: str, form: str, topic: str, outline: Outline) -> tuple[str, str, str]:
    noun, choice = with_article(form), int(fingerprint(outline.title, form)[:8], 16)
    is_letter = bool(outline.headers)
    answer = outline.text
    if form == "mail":
        # People write a mail's body; its header lines come from the mail system.
        answer = "\n\n".join(
            [outline.lead, *(f"## {part.heading}\n\n{part.text}" for part in outline.sections)]
        ).strip()
    if is_letter:
        ask = f"Write {noun}{_parties(outline)}, on {topic}."
    elif "summary" in form:
        ask = (f"Write {noun} on {topic}.", f"{form[:1].upper()}{form[1:]}, please: {topic}.")[choice % 2]
    else:
        ask = (f"Write {noun}: {topic}.", f"Turn this into {noun}: {topic}.")[choice % 2]
    facts = [fact for fact in key_facts(answer, 7) if fact not in ask]
    return origin, _with_facts(ask, facts[:6], answer), answer


def _parties(outline: Outline) -> str:
    pairs = (("from", _name(outline.header("from"))), ("to", _name(outline.header("to"))), (", dated", outline.day))
    parties = "".join(f" {word} {value}" for word, value in pairs if value)
    return parties.replace(" ,", ",")


def _name(party: str) -> str:
    """A party's name without its address."""
    return re.sub(r"\s*<[^>]*>", "", party).strip().strip('"')


def _with_facts(ask: str, facts: list[str], answer: str) -> str:
    """The request with as many facts as keep it much shorter than the answer."""
    while facts:
        prompt = f"{ask} Facts: {'; '.join(facts)}."
        if len(prompt) <= PROMPT_SHARE * len(answer):
            return prompt
        facts = facts[:-1]
    return ask


def _questions(section: OldSection) -> Iterator[tuple[str, str, str]]:
    """One question that a sentence of the section answers, with that sentence and the next as the answer."""
    section_sentences = sentences(section.text)
    for number, sentence in enumerate(section_sentences[:-1]):
        subject = _subject(sentence)
        if subject:
            answer = f"{sentence} {section_sentences[number + 1]}"
            prompt = f"What does the passage say about {subject}?\n\n{section.heading}\n{section.text}"
            yield "question", prompt, answer
            return


def _subject(sentence: str) -> str:
    """The subject of a sentence such as `The lot codes are ...`; empty if it is not clear."""
    parts = sentence.split()
    if not parts or parts[0].lower() not in {"the", "our", "a", "an"}:
        return ""
    verb = next((number for number, word in enumerate(parts[:8]) if word in ASKED_VERBS), 0)
    noun = parts[1:verb]
    if (
        not 1 <= len(noun) <= 5
        or noun[-1].lower() in SMALL_WORDS
        or any(character in " ".join(noun) for character in ",;:")
    ):
        return ""
    return " ".join([parts[0].lower(), *noun])


def _fits(row: OldRow) -> bool:
    return estimate_tokens(row.completion) >= MIN_ANSWER_TOKENS and row.tokens <= MAX_ROW_TOKENS


def _rank(row: OldRow) -> float:
    """Sort key of weighted sampling without replacement (Efraimidis and Spirakis 2006), with a hash as the random number."""
    draw = (int(fingerprint("rank", row.row_id)[:12], 16) + 1) / 16**12
    return -math.pow(draw, 1 / WEIGHTS[row.origin])
