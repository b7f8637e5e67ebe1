"""Callers of a canary, the drafts that they leave, and failed answers compared with cancelled ones."""

from dataclasses import replace

import pytest

from services.inference import handlers, wire
from services.inference.domain import (
    Caller,
    Canary,
    ChatMessage,
    GenerationRequest,
    RowToScore,
    Sampling,
    ServedModel,
    is_in_share,
)
from services.inference.generation import Answer, Cancellation
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import models_pb2
from tailor.errors import FailedPrecondition, Reason, Unavailable
from tailor.events.erased import Erased
from tests.unit.inference.fakes import CONSOLE, EVALUATION, World, adapter, apply_serving, make_world, served

USER = (ChatMessage("user", "Write."),)


def with_canary(generation: int = 2, percent: int = 50) -> ServedModel:
    """`a` serves, and `b` answers a share of the callers."""
    return replace(served("reports", generation, "a"), canary=Canary(adapter("b"), "of-b", "House style.", percent))


def key(number: int) -> Caller:
    return Caller("key", "team", key_id=f"key_{number:016x}")


def world_with_canary(slots: int = 2) -> World:
    world = make_world(slots=slots)
    apply_serving(world, with_canary())
    return world


def finish(world: World, caller: Caller, model: str = "reports") -> Answer:
    answer = handlers.generate(
        world.inference, caller, GenerationRequest(model, USER, Sampling(max_tokens=3)), Cancellation()
    )
    list(answer)
    return answer


def callers(*, in_canary: bool) -> list[Caller]:
    return [key(n) for n in range(40) if with_canary().for_caller(key(n)).is_canary is in_canary]


@pytest.mark.parametrize("percent", [1, 10, 50, 99])
def test_a_canarys_share_of_ten_thousand_keys_is_near_its_percent_and_repeatable(percent: int) -> None:
    canary = with_canary(percent=percent)
    first = [canary.for_caller(key(number)).is_canary for number in range(10_000)]
    again = [with_canary(7, percent).for_caller(key(number)).is_canary for number in range(10_000)]
    assert first == again
    # Four standard deviations.
    assert abs(sum(first) - 100 * percent) < 4 * (percent * (100 - percent)) ** 0.5


def test_canaries_have_different_callers_and_a_larger_share_keeps_the_smaller_ones_callers() -> None:
    names = [(f"key_{number}", "reports", "b") for number in range(200)]
    tenth = [is_in_share(10, *name) for name in names]
    assert tenth != [is_in_share(10, key_id, "reports", "c") for key_id, _, _ in names]
    assert tenth != [is_in_share(10, key_id, "memos", "b") for key_id, _, _ in names]
    assert all(is_in_share(20, *name) for name, was in zip(names, tenth, strict=True) if was)


def test_each_caller_gets_its_arm_and_the_draft_names_it() -> None:
    world = world_with_canary()
    for caller, digest in ((callers(in_canary=True)[0], "b"), (callers(in_canary=False)[0], "a")):
        answer = finish(world, caller)
        assert world.engine.streams[-1].adapter == digest
        draft = world.published.drafts[-1]
        assert draft.served == answer.served
        message = wire.from_draft(draft, "tiny")
        dataset = "of-b" if digest == "b" else "dataset"
        assert (message.adapter_digest, message.canary, message.generation) == (digest, digest == "b", 2)
        assert message.dataset_digest == dataset
        assert wire.to_record(message).draft.served.is_canary is (digest == "b")
    # The canary has the system prompt that it was trained with.
    assert [messages[0].role for messages in world.engine.encoded] == ["system", "user"]


def test_services_and_the_base_never_get_a_canary() -> None:
    world = world_with_canary()
    for caller in (EVALUATION, CONSOLE):
        finish(world, caller)
    finish(world, callers(in_canary=True)[0], "base")
    handlers.score(world.inference, EVALUATION, "reports", [RowToScore(USER, "Done.")], lambda: False)
    assert [stream.adapter for stream in world.engine.streams] == ["a", "a", ""]
    assert not any(draft.served.is_canary for draft in world.published.drafts)


def test_a_caller_lists_the_arm_that_answers_it() -> None:
    world = world_with_canary()
    for caller, digest in ((callers(in_canary=True)[0], "b"), (callers(in_canary=False)[0], "a"), (CONSOLE, "a")):
        by_name = dict(handlers.list_specialists(world.models.table, caller))
        assert (by_name["reports"].adapter_digest, by_name["reports"].is_canary) == (digest, digest == "b")


def test_loads_both_adapters_before_the_switch_and_keeps_the_old_generation_if_one_is_bad() -> None:
    world = make_world()
    apply_serving(world, served("reports", 1, "a"))
    world.library.bad.add("b")
    apply_serving(world, with_canary())
    assert [(report.served.generation, report.refusal) for report in world.published.reports] == [
        (1, ""),
        (2, "WRONG_BASE"),
    ]
    assert finish(world, callers(in_canary=True)[0]).served.generation == 1
    world.library.bad.clear()
    apply_serving(world, with_canary(3))
    assert set(world.engine.loaded) == {"a", "b"}
    assert finish(world, callers(in_canary=True)[0]).served.adapter_digest == "b"


def test_a_single_slot_is_enough() -> None:
    world = world_with_canary(slots=1)
    for caller in (callers(in_canary=True)[0], callers(in_canary=False)[0]):
        assert finish(world, caller).finish_reason == "length"


def test_a_retired_canary_is_dropped_once_its_successor_serves() -> None:
    world = world_with_canary()
    erased = Erased("doc_1", "ers_1", ("of-b",), ("b",), ("b",))
    with pytest.raises(Unavailable):
        handlers.forget_erased(world.models, erased)
    apply_serving(world, served("reports", 3, "a"))
    assert handlers.forget_erased(world.models, erased).counts["adapters"] == 1


def test_an_answer_that_fails_in_the_engine_is_published_as_an_error() -> None:
    world = world_with_canary()
    world.engine.fails = Unavailable(Reason.ENGINE_FAILED, "It broke.")
    with pytest.raises(Unavailable):
        finish(world, key(1))
    assert [draft.finish_reason for draft in world.published.drafts] == ["error"]


def test_an_adapter_that_does_not_load_fails_the_call_and_frees_its_place() -> None:
    world = world_with_canary()
    world.models.cache.drop("b")
    world.library.bad.add("b")
    caller = callers(in_canary=True)[0]
    with pytest.raises(FailedPrecondition):
        finish(world, caller)
    (draft,) = world.published.drafts
    assert (draft.finish_reason, draft.served.is_canary, draft.completion_tokens) == ("error", True, 0)
    # Its place is free again.
    world.library.bad.clear()
    assert finish(world, caller).finish_reason == "length"


def test_a_reader_that_goes_away_cancels_the_answer() -> None:
    world = world_with_canary()
    question = GenerationRequest("reports", USER, Sampling(max_tokens=3))
    for pieces in (0, 1):
        answer = handlers.generate(world.inference, key(1), question, Cancellation())
        for _ in zip(range(pieces), answer, strict=False):
            pass
        answer.close()
    assert [draft.finish_reason for draft in world.published.drafts] == ["cancelled", "cancelled"]


def test_reads_a_canary_from_the_serving_event() -> None:
    ref = common_pb2.ObjectRef(uri="s3://models/adapters/b/manifest.json", sha256="b", size_bytes=100)
    message = models_pb2.SpecialistServing(specialist="reports", generation=2, adapter_digest="a")
    assert wire.to_served(message).canary is None
    message.canary.CopyFrom(
        models_pb2.ServingCanary(
            adapter_digest="b", manifest=ref, dataset_digest="of-b", system_prompt="House style.", percent=50
        )
    )
    assert wire.to_served(message).canary == with_canary().canary
