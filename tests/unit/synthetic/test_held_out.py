"""A dataset never has more held-out rows than the specialist's limit, however many documents share passages."""

from collections.abc import Iterable
from dataclasses import replace

import pytest

from services.synthetic import handlers
from services.synthetic.domain import Dataset
from tailor.rounds import is_held_out, split_draw
from tailor.values import RowPolicy
from tests.unit.synthetic.fakes import SPECIALIST, FakeSynthetic, ListedRows, make_app, put_document
from tests.unit.synthetic.test_building import row, sentence

LIMIT = RowPolicy(held_out_percent=50, max_held_out_rows=20)
# Numbers of documents whose components would be held out.
DRAWN = [number for number in range(1000) if is_held_out(f"doc_{number:032d}", 50)]


def house(policy: RowPolicy = LIMIT, **changes: object) -> FakeSynthetic:
    return make_app(specialists={"reports": replace(SPECIALIST, rows=policy)}, **changes)


def put_chain(app: FakeSynthetic, first: int, numbers: Iterable[int]) -> None:
    """Documents of which each shares a passage with the next: one component with the id of the first."""
    for place, number in enumerate(numbers):
        passages = [f"Chain{first} link{place + more} here {sentence(number + more)}" for more in (0, 1)]
        text = f"# Chain text{number}\n\n## Before\n\n{passages[0]}.\n\n## After\n\n{passages[1]}."
        handlers.on_document(app, put_document(app.store, number, text=text))


def put_single(app: FakeSynthetic, numbers: Iterable[int]) -> None:
    for number in numbers:
        handlers.on_document(app, put_document(app.store, number))


def build(app: FakeSynthetic) -> Dataset:
    return handlers.build_dataset(app, "reports", "").dataset


def documents(app: FakeSynthetic, dataset: Dataset, split: str) -> set[str]:
    return {key for made in app.rows(dataset.digest, split) for key in made["document_ids"]}


def held_out_documents(app: FakeSynthetic) -> set[str]:
    return documents(app, build(app), "held_out")


def ids(numbers: Iterable[int]) -> set[str]:
    return {f"doc_{number:032d}" for number in numbers}


def test_a_component_with_more_rows_than_there_is_room_for_trains() -> None:
    app = house()
    chain = [DRAWN[0], *range(2000, 2030)]
    put_chain(app, 1, chain)
    put_single(app, range(DRAWN[0] + 1, DRAWN[0] + 60))
    dataset = build(app)
    assert 18 <= dataset.held_out_rows <= 20
    assert ids(chain) <= documents(app, dataset, "train")
    assert "max_held_out_rows" not in dataset.skipped


def test_the_rows_of_the_only_component_beyond_the_limit_are_counted_and_in_neither_split() -> None:
    app = house()
    chain = [DRAWN[0], *range(2000, 2030)]
    put_chain(app, 1, chain)
    others = [number for number in range(60) if number not in DRAWN]
    put_single(app, others)
    dataset = build(app)
    skipped = dataset.skipped["max_held_out_rows"]
    assert dataset.held_out_rows == 20
    assert documents(app, dataset, "train") == ids(others)
    assert skipped.rows > 30 and skipped.characters > 0
    assert skipped.documents == len(ids(chain) - documents(app, dataset, "held_out"))
    assert dataset.figures.coverage < 1


# Numbers of documents that the default share does not draw.
TRAINING = [number for number in range(1000) if not is_held_out(f"doc_{number:032d}", RowPolicy().held_out_percent)]


@pytest.mark.parametrize(("documents", "held_out"), [(4, 1), (12, 3), (20, 5), (60, 5)])
def test_of_a_small_corpus_enough_documents_are_held_out_although_none_is_drawn(documents: int, held_out: int) -> None:
    app = house(RowPolicy())
    put_single(app, TRAINING[:documents])
    found = held_out_documents(app)
    assert len(found) == held_out
    lowest = sorted(TRAINING[:documents], key=lambda number: split_draw(f"doc_{number:032d}"))
    assert found == ids(lowest[:held_out])


def test_later_documents_complete_what_is_held_out_and_move_nothing() -> None:
    app = house(RowPolicy())
    put_single(app, TRAINING[:8])
    before = held_out_documents(app)
    put_single(app, TRAINING[8:40])
    after = held_out_documents(app)
    assert len(before) == 2 and before < after and len(after) == 5


def test_documents_that_hang_together_are_not_held_out_to_complete_a_small_corpus() -> None:
    app = house(RowPolicy())
    put_chain(app, 1, TRAINING[:10])
    put_single(app, TRAINING[10:20])
    found = held_out_documents(app)
    assert not found & ids(TRAINING[:10]) and len(found) == 5


def test_documents_that_join_full_components_are_neither_trained_on_nor_move_what_is_held_out() -> None:
    app = house()
    put_chain(app, 1, DRAWN[:1])
    put_single(app, range(DRAWN[0] + 1, DRAWN[0] + 60))
    before = build(app)
    put_chain(app, 1, range(2000, 2020))
    after = build(app)
    rows = [[made["row_id"] for made in app.rows(dataset.digest, "held_out")] for dataset in (before, after)]
    assert ids([DRAWN[0]]) <= documents(app, before, "held_out")
    assert set(rows[0]) <= set(rows[1]) and after.held_out_rows == 20
    assert not ids(range(2000, 2020)) & documents(app, after, "train")
    assert after.skipped["max_held_out_rows"].rows > 10


@pytest.mark.parametrize("rows", [1, 100])
def test_rows_of_syntheses_have_a_tenth_of_the_limit_if_there_are_as_many(rows: int) -> None:
    key = f"doc_{DRAWN[0]:032d}"
    extra = [row(sentence(n), key, made_by="teacher:wise") for n in range(rows)]
    app = house(replace(LIMIT, max_held_out_rows=40), extra_rows=(ListedRows(extra),))
    put_single(app, range(DRAWN[0], DRAWN[0] + 90))
    dataset = build(app)
    held_out = app.rows(dataset.digest, "held_out")
    taught = sum(made["made_by"] == "teacher:wise" for made in held_out)
    assert len(held_out) <= 40 and taught == (1 if rows == 1 else 40 - (len(held_out) - taught))
    assert taught >= min(rows, 4)
    if rows == 100:
        assert dataset.skipped["max_held_out_rows"].rows >= 100 - taught
