"""What the models of `bench/rows_learning.py` are asked about held-out documents. Neither side trains these wordings."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy

from bench import rows_check
from bench.rows_texts import Paper

PARTS, PART_WORDS, BEFORE_WORDS = 1, 160, 60
FACTS, FACT_WORDS = 6, 12
# Forms of parts: as in the file with its line breaks, as rows of before have them; and with single spaces, much as rows of today have them.
FILE, SPACED = "file", "spaced"
# Forms of facts: a list, as in rows of today; and a line, as in rows of before.
LIST, LINE = "list", "line"


@dataclass(frozen=True)
class HeldOutQuestion:
    """A prompt about a document, with the answer that occurs in it or with facts, in one of the forms."""

    document_id: str
    prompt: str
    form: str
    answer: str = ""
    facts: str = ""


def make_parts(paper: Paper) -> list[HeldOutQuestion]:
    """Parts of a document, evenly spread, each in both forms as the answer to its title and the words before it."""
    words = paper.text.split(" ")
    last = len(words) - PART_WORDS
    starts = sorted({max(BEFORE_WORDS, last * (2 * number + 1) // (2 * PARTS)) for number in range(PARTS)})
    parts = [
        (" ".join(words[start - BEFORE_WORDS : start]), " ".join(words[start : start + PART_WORDS])) for start in starts
    ]
    # An answer that begins with a line break would share a token with the template's own.
    shown = [
        item
        for before, part in parts
        for item in (
            (FILE, before, part.strip()),
            (SPACED, " ".join(before.split()), " ".join(part.split())),
        )
    ]
    request = f'Continue the document "{_title(paper)}". It goes on after these words:'
    return [
        HeldOutQuestion(paper.document_id, f"{request}\n\n{before}", form, part) for form, before, part in shown if part
    ]


def _title(paper: Paper) -> str:
    return next(line.strip("# *=-") for line in paper.text.split("\n") if line.strip("# *=-"))[:80]


def without_shared(parts: Sequence[HeldOutQuestion], train: Sequence[Paper]) -> list[HeldOutQuestion]:
    """The parts whose answers share no 13 words with a train document."""
    grams = [_grams(part.answer) for part in parts]
    wanted = numpy.unique(numpy.concatenate(grams)) if grams else numpy.zeros(0, numpy.uint64)
    shared = [numpy.intersect1d(wanted, _grams(paper.text)) for paper in train]
    known = numpy.unique(numpy.concatenate(shared)) if shared else wanted[:0]
    return [part for part, part_grams in zip(parts, grams, strict=True) if not numpy.isin(part_grams, known).any()]


def _grams(text: str) -> rows_check.Hashes:
    return rows_check.hash_runs(rows_check.WORD.findall(text.lower()), rows_check.GRAM)


def make_questions(papers: Sequence[Paper]) -> list[HeldOutQuestion]:
    """Two prompts with facts for each document that has at least three: as a list, and in a line."""
    questions = []
    for paper in papers:
        facts = find_facts(paper.text)
        if len(facts) > 2:
            request = f'Write a paragraph for the document "{_title(paper)}". Use these facts and no others'
            listed, line = "\n".join(f"- {fact}" for fact in facts), "; ".join(facts)
            for form, prompt in ((LIST, f"{request}:\n{listed}"), (LINE, f"{request}: {line}.")):
                questions.append(HeldOutQuestion(paper.document_id, prompt, form, "", line))
    return questions


def find_facts(text: str) -> list[str]:
    """Short sentences with a number or a name, from the middle of a text on."""
    plain = " ".join(text[len(text) // 3 :].split())
    sentences = [part.strip() for part in plain.replace(": ", ". ").split(". ")]
    return [part for part in sentences if 4 <= len(part.split()) <= FACT_WORDS and rows_check.values(part, "en")][
        :FACTS
    ]
