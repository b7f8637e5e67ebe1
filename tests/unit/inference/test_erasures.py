"""Adapters that learned from erased documents."""

import pytest

from services.inference.handlers import forget_erased, load_candidate
from tailor.errors import Unavailable
from tailor.events.erased import Erased
from tests.unit.inference.fakes import adapter, apply_serving, make_world, served

RETIRED = Erased("doc_1", "ers_1", ("dataset",), ("one",), ("one",))


def test_unloads_a_retired_adapter_when_its_successor_serves() -> None:
    world = make_world()
    apply_serving(world, served("reports", 1, "one"))
    with pytest.raises(Unavailable):
        forget_erased(world.models, RETIRED)
    apply_serving(world, served("reports", 2))
    assert forget_erased(world.models, RETIRED).counts == {"candidates": 0, "adapters": 1}
    assert world.engine.unloaded == ["one"]
    assert forget_erased(world.models, RETIRED).counts == {"candidates": 0, "adapters": 0}


def test_drops_a_tainted_candidate() -> None:
    world = make_world()
    load_candidate(world.models, adapter("one"))
    assert forget_erased(world.models, Erased("doc_1", "ers_1", (), ("one",))).counts["candidates"] == 1
    assert world.models.table.candidate("one") is None


def test_a_marked_adapter_continues_to_serve() -> None:
    world = make_world()
    apply_serving(world, served("reports", 1, "one"))
    forget_erased(world.models, Erased("doc_1", "ers_1", ("dataset",), ("one",)))
    assert "one" in world.engine.loaded


def test_does_not_drop_an_adapter_in_use() -> None:
    world = make_world()
    with world.models.cache.using(adapter("one")), pytest.raises(Unavailable):
        world.models.cache.drop("one")
    assert world.models.cache.drop("one")
