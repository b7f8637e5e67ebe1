"""13-grams, limits and extra rows of a build."""

import random
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy

from services.synthetic.building.extras import find_side
from services.synthetic.building.grams import (
    GramHasher,
    GramSet,
    count_documents,
    make_gram_set,
    measure_overlap,
    pack_counts,
    shared_rows,
    unpack_counts,
)
from services.synthetic.building.limits import SeenAnswers
from services.synthetic.building.segments import (
    LAST_BLANK,
    Context,
    MemberText,
    NonBlankOffsets,
    answer_key,
    compare_segment,
    count_letters,
    make_segment,
    write_rows,
)
from services.synthetic.corpus import Member
from services.synthetic.domain import Row
from services.synthetic.near_duplicates.minhash import hash_word
from services.synthetic.parquet import RowTable, make_table, read_numbers, write_numbers
from tailor.values import OwnTask
from tests.synthetic import SPECIALIST, WordCounter
from tests.unit.synthetic import row_texts

SAMPLE = Path("deploy/sample/documents")
BASE_NUMBER = 0x9E3779B97F4A7C15
WORDS = (
    "harbour ledger crane tariff orchard kiln valve mast quarry loom depot clinic granary archive ferry cellar".split()
)


def sentence(seed: int, count: int = 20) -> str:
    draw = random.Random(seed)
    return " ".join(f"{draw.choice(WORDS)}{draw.randrange(1000)}" for _ in range(count))


def row(answer: str, *documents: str, **values: object) -> Row:
    made = Row("report", documents, (("user", "Write."), ("assistant", answer)), tokens=5)
    return replace(made, **values)  # type: ignore[arg-type]


def table(*rows: Row) -> RowTable:
    return make_table(rows)


def context(**limits: Any) -> Context:
    return Context(replace(SPECIALIST, rows=replace(SPECIALIST.rows, **limits)), WordCounter())


def held_out_of(rows: Sequence[Row]) -> GramSet:
    return make_gram_set(made.completion for made in rows)


def test_thirteen_words_are_found_whatever_is_around_them() -> None:
    shared = sentence(1, 13)
    train = table(row(f"Before. {shared}, after", "a"), row(f"More! {shared.upper()}", "b"), row(sentence(2), "c"))
    held_out = [f"Other words {shared}; and more", sentence(3)]
    counts = count_documents(train, GramHasher()).find(make_gram_set(held_out).hashes)
    assert list(counts.values()) == [2] and unpack_counts(pack_counts(counts)) == counts
    twelve = " ".join(shared.split()[:12])
    others = count_documents(table(row(f"{twelve} end", "a")), GramHasher())
    assert others.find(make_gram_set(held_out).hashes) == {} and len(others.hashes) == 1


def table_of(texts: Sequence[str]) -> RowTable:
    """The rows of documents with these texts."""
    documents = [replace(row_texts.make_document(text), document_id=f"doc_{n}") for n, text in enumerate(texts)]
    known = [
        MemberText(Member(document, 1000), row_texts.plain(text))
        for document, text in zip(documents, texts, strict=True)
    ]
    own = tuple(OwnTask(f"form-{number}", f"Write it in form {number}.") for number in range(2))
    return make_segment(context(own_tasks=own), known).read()


def plain_grams(answer: str) -> set[tuple[str, ...]]:
    """The 13-grams of an answer, without hashes and regular expressions."""
    words = "".join(sign if sign.isalnum() or sign == "_" else " " for sign in answer.lower()).split()
    return {tuple(words[start : start + 13]) for start in range(len(words) - 12)}


def test_rows_of_the_sample_share_what_a_plain_comparison_of_their_words_says() -> None:
    house = "This paper is for the board of the company and may not be shown to anybody else before the spring."
    papers = [file.read_text(encoding="utf-8") for file in sorted(SAMPLE.glob("[mnr]*.md"))]
    texts = [f"{text}\n\n{'' if number % 3 else house}\n" for number, text in enumerate(papers)]
    held_out, train = (table_of(texts[start::2]) for start in (0, 1))
    documents: dict[tuple[str, ...], set[str]] = {}
    for ids, answer in train.answers():
        for gram in plain_grams(answer):
            documents.setdefault(gram, set()).add(ids[0])
    rows = [plain_grams(answer) & documents.keys() for _, answer in held_out.answers()]

    wanted = make_gram_set(answer for _, answer in held_out.answers())
    counts = count_documents(train, GramHasher()).find(wanted.hashes)
    assert sorted(counts.values()) == sorted(len(documents[gram]) for gram in set().union(*rows))
    shared = [any(len(documents[gram]) < 3 for gram in row) for row in rows]
    only_boilerplate = [bool(row) and not is_shared for row, is_shared in zip(rows, shared, strict=True)]
    assert shared_rows(held_out, counts, 3) == (shared, only_boilerplate)
    assert measure_overlap([held_out], counts, 3) == sum(shared) / len(rows)
    assert sum(shared) > 40 and sum(only_boilerplate) > 10


def test_no_gram_reaches_into_the_next_answer() -> None:
    halves = [sentence(1, 14), "", sentence(2, 7), sentence(3, 6), sentence(4, 13)]
    alone = [GramHasher().hash(text).tolist() for text in halves]
    assert [hashes.tolist() for hashes in GramHasher().hash_all(halves)] == alone
    assert [len(hashes) for hashes in alone] == [2, 0, 0, 0, 1]


def test_the_overlap_counts_answers_and_ignores_boilerplate() -> None:
    shared, house = sentence(1, 13), sentence(2, 13)
    held_out = [table(row(f"x {shared}"), row(f"y {house}"), row("Short."), row(sentence(4)))]
    train = table(*(row(house, f"d{number}") for number in range(3)), row(shared, "d9"))
    counts = count_documents(train, GramHasher()).find(make_gram_set([f"x {shared}", f"y {house}"]).hashes)
    assert measure_overlap(held_out, counts, 3) == 0.25
    assert measure_overlap(held_out, counts, 4) == 0.5
    assert measure_overlap([], counts, 4) == 0.0


def test_an_empty_set_finds_nothing() -> None:
    assert len(GramSet(numpy.empty(0, numpy.uint64)).find(GramHasher().hash(sentence(1)))) == 0


def test_each_answer_is_first_once_over_many_segments() -> None:
    seen, known = SeenAnswers(), set[int]()
    draw = random.Random(3)
    for _ in range(50):
        answers = [draw.randrange(400) for _ in range(30)]
        expected = []
        for answer in answers:
            expected.append(answer == 0 or answer not in known)
            known.add(answer)
        assert seen.add(numpy.array(answers, numpy.uint64)).tolist() == expected


def test_characters_are_counted_once_and_without_blanks() -> None:
    letters = NonBlankOffsets("ab c\n\u00a0d\U0001f600e")
    assert letters.total == 6 and letters.range(3, 9) == (2, 6)
    places = numpy.array([(0, 0, 0, 10), (1, 0, 5, 20), (1, 0, 6, 8), (2, 1, 0, 5)], numpy.int64)
    assert count_letters(places, numpy.array([True, True, True])) == 25
    assert count_letters(places, numpy.array([False, True, False])) == 15


def test_every_blank_is_counted_as_one() -> None:
    signs = [chr(code) for code in range(0x11_0000) if chr(code).isspace()]
    assert ord(max(signs)) == LAST_BLANK
    assert NonBlankOffsets("".join(f"a{sign}" for sign in signs)).total == len(signs)


def test_counts_of_grams_are_the_same_after_they_were_stored() -> None:
    made = [row(sentence(n), f"d{n % 5}") for n in range(20)]
    written = write_rows(context(), [table(*made).encode()], [True] * 20, held_out_of(made[3:5]))
    grams = {sentence(n): 1 for n in (3, 4)}
    assert sum(written.shares.values()) == 8 * len(grams)
    assert compare_segment(context(), written.grams, held_out_of(made[3:5])) == written.shares
    assert compare_segment(context(), written.grams, held_out_of([row(sentence(99), "x")])) == {}
    empty = read_numbers(write_numbers({"hash": b"", "documents": b""}))
    assert empty == {"hash": b"", "documents": b""}


def test_hashes_do_not_depend_on_where_sentences_and_lines_end() -> None:
    draw = random.Random(8)
    signs = [". ", ".", "\n", " ", "a", "B", "Σ", "Ο", "1", "_", "?", "İ"]
    for _ in range(300):
        text = "".join(draw.choices(signs, k=60))
        words = [hash_word(word) for word in re.findall(r"\w+", text.lower())]
        assert numpy.frombuffer(GramHasher().words(text), "<u8").tolist() == words
        plain = [
            sum(h * pow(BASE_NUMBER, 12 - n) for n, h in enumerate(words[i : i + 13])) % 2**64
            for i in range(len(words) - 12)
        ]
        assert GramHasher().hash(text).tolist() == plain


def test_equal_words_are_equal_answers_only_for_passages_of_one_task() -> None:
    hasher = GramHasher()

    def key(made: Row) -> int:
        return answer_key(made, hasher)

    first = row(sentence(1), "a", places=((0, 9),))
    assert key(first) == key(row(sentence(1).upper() + ".", "b", places=((5, 9),))) != 0
    assert key(first) != key(replace(first, task="knowledge"))
    assert key(row(sentence(1), "a")) == key(row("Yes.", "a", places=((0, 3),))) == 0


def test_without_documents_the_seeds_decide() -> None:
    sides = {find_side(row(sentence(n), lineage=(("seeds", "one seed"),)), lambda _: False, 50) for n in range(20)}
    assert len(sides) == 1
    many = [find_side(row(sentence(n), lineage=(("seeds", f"seed {n}"),)), lambda _: False, 50) for n in range(100)]
    assert 30 < sum(map(bool, many)) < 70
