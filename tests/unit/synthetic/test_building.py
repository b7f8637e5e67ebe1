"""13-grams, limits and extra rows of a build."""

import random
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy
import pytest

from services.synthetic import handlers
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
    NonBlankOffsets,
    SegmentTask,
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
from tailor.datasets import DatasetManifest, ImportCount
from tailor.errors import Aborted
from tailor.values import RowPolicy
from tests.unit.synthetic import row_texts
from tests.unit.synthetic.fakes import SPECIALIST, FakeSynthetic, ListedRows, make_app, put_document

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


def context() -> Context:
    return Context(SPECIALIST, make_app().tokenizers.for_base(SPECIALIST.base))


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
    members = tuple(Member(document, 1000) for document in documents)
    known = {f"doc_{number}": row_texts.plain(text) for number, text in enumerate(texts)}
    return make_segment(context(), SegmentTask(members, known, {})).read()


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


def with_extras(rows: Sequence[Row], policy: RowPolicy) -> FakeSynthetic:
    specialists = {"reports": replace(SPECIALIST, rows=policy)}
    app = make_app(extra_rows=(ListedRows(list(rows)),), specialists=specialists)
    for number in range(60):
        handlers.on_document(app, put_document(app.store, number))
    return app


def test_rows_of_a_synthesis_are_on_the_side_of_their_documents() -> None:
    ids = [f"doc_{number:032d}" for number in range(60)]
    made = [row(sentence(n), ids[n], made_by="teacher:wise", lineage=(("seeds", f"s{n}"),)) for n in range(60)]
    both = row(sentence(99), *ids, made_by="teacher:wise")
    app = with_extras([*made, both], RowPolicy())
    dataset = handlers.build_dataset(app, "reports", "").dataset
    sides = app.repository.sides("reports", ids)
    splits = {
        name: [r for r in app.rows(dataset.digest, name) if r["made_by"] == "teacher:wise"]
        for name in ("train", "held_out")
    }
    assert all(not sides[r["document_ids"][0]] for r in splits["train"])
    assert all(sides[r["document_ids"][0]] for r in splits["held_out"])
    assert [len(rows) for rows in splits.values()] == [60 - sum(sides.values()), sum(sides.values())]
    assert dataset.skipped["across_split"].rows == 1 and dataset.documents == 60


@pytest.mark.parametrize("maker", ["teacher:wise", "import:chat"])
def test_rows_of_others_that_the_bases_template_cannot_hold_are_skipped_and_counted(maker: str) -> None:
    made = [row(f"{sentence(n)} unfit" if n < 3 else sentence(n), made_by=maker) for n in range(400)]
    app = with_extras(made, RowPolicy(replay_percent=90, replay=("chat",)))
    dataset = handlers.build_dataset(app, "reports", "").dataset
    assert dataset.skipped["template"].rows == 3
    assert not any("unfit" in str(r) for split in ("train", "held_out") for r in app.rows(dataset.digest, split))


def test_without_documents_the_seeds_decide() -> None:
    sides = {find_side(row(sentence(n), lineage=(("seeds", "one seed"),)), lambda _: False, 50) for n in range(20)}
    assert len(sides) == 1
    many = [find_side(row(sentence(n), lineage=(("seeds", f"seed {n}"),)), lambda _: False, 50) for n in range(100)]
    assert 30 < sum(map(bool, many)) < 70


@pytest.mark.parametrize("percent", [10, 50])
def test_imported_rows_are_mixed_into_train_only_up_to_their_share(percent: int) -> None:
    imported = [row(sentence(n), made_by="import:chat") for n in range(600)]
    app = with_extras(imported, RowPolicy(replay_percent=percent, replay=("chat",)))
    dataset = handlers.build_dataset(app, "reports", "").dataset
    train = app.rows(dataset.digest, "train")
    share = sum(one["made_by"] == "import:chat" for one in train) / len(train)
    assert percent / 100 - 0.01 < share <= percent / 100
    assert not any(one["made_by"] == "import:chat" for one in app.rows(dataset.digest, "held_out"))
    assert not handlers.build_dataset(app, "reports", "").created
    manifest = DatasetManifest.parse(app.store.get(dataset.manifest))
    rows = sum(one["made_by"] == "import:chat" for one in train)
    assert manifest.imports == (ImportCount("chat", "MIT", 30, "chat.jsonl", rows),)
    assert manifest.teacher_tokens == 70


def test_an_import_that_appears_during_a_build_is_not_mixed_in_without_its_licence() -> None:
    app = with_extras([row(sentence(1), made_by="import:late")], RowPolicy(replay_percent=50, replay=("late",)))
    with pytest.raises(Aborted):
        handlers.build_dataset(app, "reports", "")


def test_counts_documents_and_rows_by_language_and_says_which_have_no_templates() -> None:
    made = [row(sentence(n), f"doc_{0:032d}", made_by="teacher:wise", language="de") for n in (1, 2)]
    app = with_extras(made, RowPolicy())
    for number in range(60, 70):
        handlers.on_document(app, replace(put_document(app.store, number), language="fi"))
    dataset = handlers.build_dataset(app, "reports", "").dataset
    languages = DatasetManifest.parse(app.store.get(dataset.manifest)).languages
    assert languages["de"].rows == 2 and languages["fi"].rows >= 10
    assert sum(count.rows for count in languages.values()) == dataset.train_rows + dataset.held_out_rows
    assert {tag: (count.documents, count.has_templates) for tag, count in languages.items()} == {
        "": (60, False),
        "fi": (10, False),
        "de": (0, True),
    }
