"""A dataset has enough held-out rows, and never more than the specialist's limit, however many documents share passages."""

from collections.abc import Iterable

import pytest
from sqlalchemy import Engine

from services.synthetic.domain import Dataset
from tailor.rounds import is_held_out, split_draw
from tailor.values import RowPolicy
from tests.synthetic import World, key_of
from tests.unit.synthetic.test_building import sentence

pytestmark = pytest.mark.integration

LIMIT = RowPolicy(held_out_percent=50, max_held_out_rows=20)
# Numbers of documents whose components would be held out, and of those that the default share does not draw.
DRAWN = [number for number in range(1000) if is_held_out(key_of(number), 50)]
TRAINING = [number for number in range(1000) if not is_held_out(key_of(number), RowPolicy().held_out_percent)]


def house(engine: Engine, policy: RowPolicy) -> World:
    world = World(engine)
    world.define(rows=policy, system_prompt="")
    return world


def put_chain(world: World, numbers: Iterable[int]) -> None:
    """Documents of which each shares a passage with the next: one component with the id of the first."""
    for place, number in enumerate(numbers):
        passages = [f"Link {sentence(10_000 + place + more, 30)}" for more in (0, 1)]
        world.put(number, text=f"# Chain\n\n## Before\n\n{passages[0]}.\n\n## After\n\n{passages[1]}.")


def ids(numbers: Iterable[int]) -> set[str]:
    return set(map(key_of, numbers))


def held_out(world: World, dataset: Dataset) -> set[str]:
    return world.taught(dataset.digest, "held_out")


def test_a_component_with_more_rows_than_there_is_room_for_trains(engine: Engine) -> None:
    world = house(engine, LIMIT)
    chain = [DRAWN[0], *range(2000, 2030)]
    put_chain(world, chain)
    world.put(*range(DRAWN[0] + 1, DRAWN[0] + 60))
    dataset = world.build()
    assert 18 <= dataset.held_out_rows <= 20 and "max_held_out_rows" not in dataset.skipped
    assert ids(chain) <= world.taught(dataset.digest, "train")


def test_the_rows_of_the_only_component_beyond_the_limit_are_counted_and_in_neither_split(engine: Engine) -> None:
    world = house(engine, LIMIT)
    chain = [DRAWN[0], *range(2000, 2030)]
    put_chain(world, chain)
    others = [number for number in range(60) if number not in DRAWN]
    world.put(*others)
    dataset = world.build()
    skipped = dataset.skipped["max_held_out_rows"]
    assert dataset.held_out_rows == 20 and world.taught(dataset.digest, "train") == ids(others)
    assert skipped.rows > 30 and skipped.characters > 0 and dataset.figures.coverage < 1
    assert skipped.documents == len(ids(chain) - held_out(world, dataset))


def test_of_a_small_corpus_enough_documents_are_held_out_although_none_is_drawn_and_they_stay(engine: Engine) -> None:
    world = house(engine, RowPolicy())
    found: list[set[str]] = []
    for first, last, count in ((0, 4, 1), (4, 12, 3), (12, 20, 5), (20, 40, 5)):
        world.put(*TRAINING[first:last])
        found.append(held_out(world, world.build()))
        assert len(found[-1]) == count and found[-1] >= (found[-2] if first else set())
    (lowest,) = found[0]
    assert lowest == min(map(key_of, TRAINING[:4]), key=split_draw)


def test_documents_that_hang_together_are_not_held_out_to_complete_a_small_corpus(engine: Engine) -> None:
    world = house(engine, RowPolicy())
    put_chain(world, TRAINING[:10])
    world.put(*TRAINING[10:20])
    found = held_out(world, world.build())
    assert not found & ids(TRAINING[:10]) and len(found) == 5


def test_documents_that_join_full_components_are_neither_trained_on_nor_move_what_is_held_out(engine: Engine) -> None:
    world = house(engine, LIMIT)
    put_chain(world, DRAWN[:1])
    world.put(*range(DRAWN[0] + 1, DRAWN[0] + 60))
    before = world.build()
    assert ids(DRAWN[:1]) <= held_out(world, before)
    put_chain(world, [DRAWN[0], *range(2000, 2020)])
    after = world.build()
    first, second = ({row["row_id"] for row in world.rows(it.digest, "held_out")} for it in (before, after))
    assert first <= second and after.held_out_rows == 20
    assert not ids(range(2000, 2020)) & world.taught(after.digest, "train")
    assert after.skipped["max_held_out_rows"].rows > 10
