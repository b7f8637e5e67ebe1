"""Rows from a document's own structure (write a section, write the document, answer a question), and rows that people wrote."""

import math
import re
from collections.abc import Iterator

from services.synthetic.domain import (
    Conversation,
    Document,
    Kind,
    Passage,
    Row,
    RowLimits,
    Specialist,
    Text,
    estimate_tokens,
    fingerprint,
)
from services.synthetic.rows.structure import (
    Outline,
    Section,
    key_facts,
    lower_first,
    parse,
    sentences,
    with_article,
)

# How likely a candidate is chosen before the others of its document.
WEIGHTS = {"board_summary": 4.0, "document": 2.0, "section": 1.0, "question": 0.6}
PROMPT_SHARE = 0.5
ASKED_VERBS = ("is", "are", "was", "were", "must", "will", "covers", "needs", "asks", "requires")
SMALL_WORDS = frozenset({"the", "a", "an", "of", "on", "in", "for", "and", "to", "at", "by", "with", "our", "this"})
MAX_TITLE_CHARS = 160


def make_rows(document: Document, text: Text, specialist: Specialist, limits: RowLimits) -> list[Row]:
    """Make the rows of one document. They are chosen by a hash: equal documents give equal rows."""
    if document.kind is Kind.EXAMPLE:
        return _example_rows(document, text, specialist)
    outline = parse(text.text)
    rows = [
        Row(
            origin,
            (document.document_id,),
            prompt,
            completion,
            system_prompt=specialist.system_prompt,
            passage=None if section is None else Passage(outline.title, section.heading, section.text),
        )
        for section, (origin, prompt, completion) in _candidates(document, outline)
    ]
    fitting = sorted((row for row in rows if _fits(row, limits)), key=_rank)
    # One question per document, because its prompt contains a passage and costs more than it teaches.
    questions = [row for row in fitting if row.origin == "question"]
    return [row for row in fitting if row not in questions[1:]][: limits.rows_per_document]


def deliverable_rows(
    document: Document, text: Text, draft: Conversation, specialist: Specialist, limits: RowLimits
) -> list[Row]:
    """The deliverable, verbatim, as the answer to its draft's prompt; no row for a longer chat, or if the row is too long."""
    if len(draft.messages) != 1:
        return []
    ((_, prompt),) = draft.messages
    row = Row("deliverable", (document.document_id,), prompt, text.text, "human", specialist.system_prompt)
    return [row] if _fits(row, limits) else []


def passages(text: Text, limits: RowLimits) -> list[Passage]:
    """The passages of a document about which a teacher is asked."""
    outline = parse(text.text)
    parts = outline.sections or (Section("", outline.lead),)
    return [
        Passage(outline.title, part.heading, part.text)
        for part in parts
        if limits.min_answer_tokens <= estimate_tokens(part.text) <= limits.max_row_tokens
    ]


def _example_rows(document: Document, text: Text, specialist: Specialist) -> list[Row]:
    prompt, answer = (text.prompt or "").strip(), text.text.strip()
    if not prompt or not answer:
        return []
    ids = (document.document_id,)
    return [Row("example", ids, prompt, answer, made_by="human", system_prompt=specialist.system_prompt)]


def _candidates(document: Document, outline: Outline) -> Iterator[tuple[Section | None, tuple[str, str, str]]]:
    """Yield (task, prompt, answer), each with its section; None for the whole document."""
    form, topic = form_and_topic(document, outline)
    if not topic:
        return
    if "summary" in form:
        yield None, _whole("board_summary", form, topic, outline)
    elif outline.headers or not outline.sections:
        yield None, _whole("document", form, topic, outline)
    if outline.headers and outline.sections:
        yield outline.sections[0], _opening(form, topic, outline)
    for section in outline.sections:
        yield section, _section(section, form, topic, outline)
    for section in outline.sections:
        yield from ((section, question) for question in _questions(section))


def form_and_topic(document: Document, outline: Outline) -> tuple[str, str]:
    """The form of a document, such as `engagement report`, and its topic; the topic is empty if it is not clear."""
    title = outline.title[:MAX_TITLE_CHARS]
    if outline.headers:
        mail = "@" in outline.header("from") + outline.header("to") or bool(outline.header("cc"))
        return ("mail" if mail else "memo"), lower_first(title, outline.text)
    before, colon, after = title.partition(":")
    if colon and after.strip() and len(before.split()) <= 4:
        return before.strip().lower(), lower_first(after.strip(), outline.text)
    labels = (document.labels.source, document.labels.department, document.labels.confidentiality)
    if any("summary" in value for value in (title.lower(), *labels)):
        return "summary", title
    first = next(iter(sentences(outline.lead)), "")
    if not outline.sections and title and len(title.split()) <= 6:
        return lower_first(title, title.lower()), first.rstrip(".")
    return "document", title


def _section(section: Section, form: str, topic: str, outline: Outline) -> tuple[str, str, str]:
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


def _questions(section: Section) -> Iterator[tuple[str, str, str]]:
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


def _fits(row: Row, limits: RowLimits) -> bool:
    answer = estimate_tokens(row.completion)
    return limits.min_answer_tokens <= answer and row.tokens <= limits.max_row_tokens


def _rank(row: Row) -> float:
    """Sort key of weighted sampling without replacement (Efraimidis and Spirakis 2006), with a hash as the random number."""
    draw = (int(fingerprint("rank", row.row_id)[:12], 16) + 1) / 16**12
    return -math.pow(draw, 1 / WEIGHTS[row.origin])
