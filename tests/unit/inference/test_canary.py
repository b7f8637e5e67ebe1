"""Who gets a canary, what is stated of it, and that an answer which fails is told from one that its caller ended."""

from dataclasses import replace

import pytest

from services.inference import handlers
from services.inference.adapters.drafts import to_record
from services.inference.adapters.statements import to_message
from services.inference.answering import Answer, Cancellation
from services.inference.consumers import to_served
from services.inference.domain import Ask, Caller, Canary, RowToScore, Sampling, Served, Turn, in_share
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import models_pb2
from tailor.errors import FailedPrecondition, Reason, Unavailable
from tailor.events.erased import Erased
from tests.unit.inference.fakes import CONSOLE, EVALUATION, World, adapter, make_world, served

USER = (Turn("user", "Write."),)


def tried(generation: int = 2, percent: int = 50) -> Served:
    """`a` serves, and `b` a share of the callers."""
    return replace(served("reports", generation, "a"), canary=Canary(adapter("b"), "of-b", "House style.", percent))


def key(number: int) -> Caller:
    return Caller("key", "team", key_id=f"key_{number:016x}")


def world_with_canary(**slots: int) -> World:
    world = make_world(**slots)
    handlers.apply_serving(world.inference, tried())
    return world


def finish(world: World, caller: Caller, model: str = "reports") -> Answer:
    answer = handlers.generate(world.inference, caller, Ask(model, USER, Sampling(max_tokens=3)), Cancellation())
    list(answer)
    return answer


def callers(*, in_canary: bool) -> list[Caller]:
    return [key(n) for n in range(40) if tried().for_caller(key(n)).is_canary is in_canary]


@pytest.mark.parametrize("percent", [1, 10, 50, 99])
def test_the_share_of_ten_thousand_keys_is_near_its_percent_and_always_the_same(percent: int) -> None:
    canary = tried(percent=percent)
    first = [canary.for_caller(key(number)).is_canary for number in range(10_000)]
    again = [tried(7, percent).for_caller(key(number)).is_canary for number in range(10_000)]
    assert first == again
    # Four standard deviations.
    assert abs(sum(first) - 100 * percent) < 4 * (percent * (100 - percent)) ** 0.5


def test_another_canary_or_specialist_has_other_callers_and_a_larger_share_keeps_its_own() -> None:
    names = [(f"key_{number}", "reports", "b") for number in range(200)]
    tenth = [in_share(10, *name) for name in names]
    assert tenth != [in_share(10, key_id, "reports", "c") for key_id, _, _ in names]
    assert tenth != [in_share(10, key_id, "memos", "b") for key_id, _, _ in names]
    assert all(in_share(20, *name) for name, was in zip(names, tenth, strict=True) if was)


def test_each_caller_is_answered_by_its_own_arm_and_the_draft_says_which() -> None:
    world = world_with_canary()
    for caller, digest in ((callers(in_canary=True)[0], "b"), (callers(in_canary=False)[0], "a")):
        answer = finish(world, caller)
        assert world.engine.streams[-1].adapter == digest
        draft = world.kept.drafts[-1]
        assert draft.served == answer.served
        message = to_message(draft, "tiny")
        dataset = "of-b" if digest == "b" else "dataset"
        assert (message.adapter_digest, message.canary, message.generation) == (digest, digest == "b", 2)
        assert message.dataset_digest == dataset
        assert to_record(message).draft.served.is_canary is (digest == "b")
    # The canary has the system prompt that it was trained with.
    assert [turns[0].role for turns in world.engine.encoded] == ["system", "user"]


def test_evaluation_services_and_the_base_are_not_part_of_it() -> None:
    world = world_with_canary()
    for caller in (EVALUATION, CONSOLE):
        finish(world, caller)
    finish(world, callers(in_canary=True)[0], "base")
    handlers.score(world.inference, EVALUATION, "reports", [RowToScore(USER, "Done.")], lambda: False)
    assert [stream.adapter for stream in world.engine.streams] == ["a", "a", ""]
    assert not any(draft.served.is_canary for draft in world.kept.drafts)


def test_a_caller_lists_what_it_gets_itself() -> None:
    world = world_with_canary()
    for caller, digest in ((callers(in_canary=True)[0], "b"), (callers(in_canary=False)[0], "a"), (CONSOLE, "a")):
        named = dict(handlers.list_specialists(world.inference, caller))
        assert (named["reports"].adapter_digest, named["reports"].is_canary) == (digest, digest == "b")


def test_both_adapters_are_loaded_before_the_switch_and_a_bad_one_leaves_the_old_generation() -> None:
    world = make_world()
    handlers.apply_serving(world.inference, served("reports", 1, "a"))
    world.library.bad.add("b")
    handlers.apply_serving(world.inference, tried())
    assert [(report.served.generation, report.refusal) for report in world.kept.reports] == [(1, ""), (2, "WRONG_BASE")]
    assert finish(world, callers(in_canary=True)[0]).served.generation == 1
    world.library.bad.clear()
    handlers.apply_serving(world.inference, tried(3))
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
        handlers.forget_erased(world.inference, erased)
    handlers.apply_serving(world.inference, served("reports", 3, "a"))
    assert handlers.forget_erased(world.inference, erased).counts["adapters"] == 1


def test_an_answer_that_the_engine_fails_is_stated_as_an_error_and_keeps_no_text() -> None:
    world = world_with_canary()
    world.engine.fails = Unavailable(Reason.ENGINE_FAILED, "It broke.")
    with pytest.raises(Unavailable):
        finish(world, key(1))
    assert [draft.finish_reason for draft in world.kept.drafts] == ["error"]


def test_an_adapter_that_cannot_be_had_fails_the_call_once() -> None:
    world = world_with_canary()
    world.inference.shelf.drop("b")
    world.library.bad.add("b")
    caller = callers(in_canary=True)[0]
    with pytest.raises(FailedPrecondition):
        finish(world, caller)
    (draft,) = world.kept.drafts
    assert (draft.finish_reason, draft.served.is_canary, draft.completion_tokens) == ("error", True, 0)
    # Its place is free again.
    world.library.bad.clear()
    assert finish(world, caller).finish_reason == "length"


def test_a_reader_that_goes_away_is_no_error() -> None:
    world = world_with_canary()
    question = Ask("reports", USER, Sampling(max_tokens=3))
    for pieces in (0, 1):
        answer = handlers.generate(world.inference, key(1), question, Cancellation())
        for _ in zip(range(pieces), answer, strict=False):
            pass
        answer.close()
    assert [draft.finish_reason for draft in world.kept.drafts] == ["cancelled", "cancelled"]


def test_a_canary_comes_with_the_event_that_says_what_serves() -> None:
    ref = common_pb2.ObjectRef(uri="s3://models/adapters/b/manifest.json", sha256="b", size_bytes=100)
    message = models_pb2.SpecialistServing(specialist="reports", generation=2, adapter_digest="a")
    assert to_served(message).canary is None
    message.canary.CopyFrom(
        models_pb2.ServingCanary(
            adapter_digest="b", manifest=ref, dataset_digest="of-b", system_prompt="House style.", percent=50
        )
    )
    assert to_served(message).canary == tried().canary
