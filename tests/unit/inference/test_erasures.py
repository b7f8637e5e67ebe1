"""Adapters that learned from erased documents."""

import pytest

from services.inference.handlers import forget_erased, load_candidate
from tailor.errors import Unavailable
from tailor.events.erased import Erased
from tests.unit.inference.fakes import adapter, apply_serving, make_world, served

RETIRED = Erased("doc_1", "ers_1", ("dataset",), ("one",), ("one",))


def test_a_retired_adapter_is_unloaded_once_something_else_serves() -> None:
    world = make_world()
    apply_serving(world, served("reports", 1, "one"))
    with pytest.raises(Unavailable):
        forget_erased(world.models, RETIRED)
    apply_serving(world, served("reports", 2))
    assert forget_erased(world.models, RETIRED).counts == {"candidates": 0, "adapters": 1}
    assert world.engine.unloaded == ["one"]
    assert forget_erased(world.models, RETIRED).counts == {"candidates": 0, "adapters": 0}


def test_a_tainted_candidate_is_one_no_more() -> None:
    world = make_world()
    load_candidate(world.models, adapter("one"))
    assert forget_erased(world.models, Erased("doc_1", "ers_1", (), ("one",))).counts["candidates"] == 1
    assert world.models.table.candidate("one") is None


def test_an_adapter_that_is_only_marked_goes_on_serving() -> None:
    world = make_world()
    apply_serving(world, served("reports", 1, "one"))
    forget_erased(world.models, Erased("doc_1", "ers_1", ("dataset",), ("one",)))
    assert "one" in world.engine.loaded


def test_an_adapter_in_use_is_not_pulled_from_under_an_answer() -> None:
    world = make_world()
    with world.models.cache.using(adapter("one")), pytest.raises(Unavailable):
        world.models.cache.drop("one")
    assert world.models.cache.drop("one")
