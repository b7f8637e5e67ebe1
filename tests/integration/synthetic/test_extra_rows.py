"""Rows of syntheses and imports in a dataset: their side, their share, and what is counted of them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine

from services.synthetic.domain import Row
from tailor.datasets import ImportCount
from tailor.errors import Aborted
from tailor.values import RowPolicy
from tests.synthetic import SPECIALIST, ListedRows, World, key_of
from tests.unit.synthetic.test_building import row, sentence

pytestmark = pytest.mark.integration


def with_rows(engine: Engine, rows: Sequence[Row], policy: RowPolicy, count: int = 40) -> World:
    specialists = {"reports": replace(SPECIALIST, rows=policy)}
    world = World(engine, extra_rows=(ListedRows(list(rows)),), specialists=specialists)
    world.fill(count=count)
    return world


def test_rows_of_a_synthesis_are_on_the_side_of_their_documents_and_counted_by_language(engine: Engine) -> None:
    ids = [key_of(number) for number in range(40)]
    made = [row(sentence(n), ids[n], made_by="teacher:wise", language="de") for n in range(40)]
    both = row(sentence(99), *ids, made_by="teacher:wise")
    unfit = [row(f"{sentence(200 + n)} unfit", ids[n], made_by="teacher:wise") for n in range(40)]
    world = with_rows(engine, [*made, both, *unfit], RowPolicy())
    world.put(*range(60, 66), language="fi")
    dataset = world.build()
    sides = world.repository.sides("reports", ids)
    for split, is_held_out in (("train", False), ("held_out", True)):
        rows = [it for it in world.rows(dataset.digest, split) if it["made_by"] == "teacher:wise"]
        assert {key for it in rows for key in it["document_ids"]} == {k for k in ids if sides[k] == is_held_out}
        assert "unfit" not in str(rows)
    assert dataset.skipped["across_split"].rows == 1 and dataset.skipped["template"].rows == 40
    assert dataset.documents == 46
    languages = world.manifest(dataset.digest).languages
    assert languages["de"].rows == 40
    assert sum(count.rows for count in languages.values()) == dataset.train_rows + dataset.held_out_rows
    assert {tag: (count.documents, count.has_templates) for tag, count in languages.items()} == {
        "": (40, False),
        "fi": (6, False),
        "de": (0, True),
    }


def test_imported_rows_are_mixed_into_train_only_up_to_their_share(engine: Engine) -> None:
    imported = [row(f"{sentence(n)}{' unfit' * (n < 3)}", made_by="import:chat") for n in range(400)]
    world = with_rows(engine, imported, RowPolicy(replay_percent=50, replay=("chat",)))

    def count(split: str) -> tuple[int, int]:
        rows = world.rows(dataset.digest, split)
        return sum(it["made_by"] == "import:chat" for it in rows), len(rows)

    dataset = world.build()
    mixed, rows = count("train")
    assert 0.47 < mixed / rows <= 0.5 and count("held_out")[0] == 0
    assert not world.build_result().created
    manifest = world.manifest(dataset.digest)
    assert manifest.imports == (ImportCount("chat", "MIT", 30, "chat.jsonl", mixed),) and manifest.teacher_tokens == 70
    world.define(rows=RowPolicy(replay_percent=90, replay=("chat",)))
    dataset = world.build()
    assert dataset.skipped["template"].rows == 3 and count("train")[0] == 397


def test_an_import_that_appears_during_a_build_is_not_mixed_in_without_its_licence(engine: Engine) -> None:
    rows = [row(sentence(1), made_by="import:late")]
    with pytest.raises(Aborted):
        with_rows(engine, rows, RowPolicy(replay_percent=50, replay=("late",))).build()


@pytest.mark.parametrize("rows", [1, 100])
def test_rows_of_syntheses_have_a_tenth_of_the_held_out_limit_if_there_are_as_many(engine: Engine, rows: int) -> None:
    policy = RowPolicy(held_out_percent=50, max_held_out_rows=40)
    world = with_rows(engine, (), policy, count=60)
    world.build()
    sides = world.repository.sides("reports", [key_of(number) for number in range(60)])
    key = min(key for key, is_held_out in sides.items() if is_held_out)
    extra: Any = ListedRows([row(sentence(n), key, made_by="teacher:wise") for n in range(rows)])
    world.app = replace(world.app, extra_rows=(extra,))
    dataset = world.build()
    held_out = world.rows(dataset.digest, "held_out")
    taught = sum(made["made_by"] == "teacher:wise" for made in held_out)
    assert len(held_out) <= 40 and min(rows, 4) <= taught <= rows
    assert rows == 1 or dataset.skipped["max_held_out_rows"].rows >= 100 - taught
