"""Answers, drafts, generations, candidates and scores."""

import math
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from services.inference import handlers
from services.inference.domain import (
    CALLER_ROLE,
    Caller,
    ChatMessage,
    Draft,
    DraftFeedback,
    DraftRecord,
    GenerationRequest,
    OutcomeReport,
    Probe,
    PromptRecord,
    RowToScore,
    Sampling,
    Score,
    Transcript,
)
from services.inference.generation import Answer, Cancellation
from tailor.errors import Aborted, FailedPrecondition, InvalidArgument, NotFound, Reason, ResourceExhausted, Unavailable
from tailor.storage.ref import Ref
from tests.unit.inference.fakes import (
    CONSOLE,
    EVALUATION,
    KEY,
    FakeEngine,
    World,
    adapter,
    apply_serving,
    make_world,
    served,
)
from tests.waiting import wait_until

USER = ChatMessage("user", "Write the Position section.")


def ask(model: str = "base", *messages: ChatMessage, **sampling: object) -> GenerationRequest:
    return GenerationRequest(model, messages or (USER,), Sampling(**({"max_tokens": 3} | sampling)))  # type: ignore[arg-type]


def begin(world: World, question: GenerationRequest, caller: Caller = KEY) -> Answer:
    return handlers.generate(world.inference, caller, question, Cancellation())


def finish(world: World, question: GenerationRequest, caller: Caller = KEY) -> Answer:
    answer = begin(world, question, caller)
    list(answer)
    return answer


class Announced:
    """Counts the calls that wait for the model."""

    def __init__(self) -> None:
        self.waiting = 0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1


def test_a_call_waits_for_a_place_and_for_each_piece_but_not_while_its_reader_has_one() -> None:
    announced = Announced()
    world = make_world(max_concurrent=1, announce_call=announced)
    answer = begin(world, ask())
    pieces = iter(answer)
    next(pieces)
    # A reader that takes its time holds up nobody but itself.
    assert announced.waiting == 0
    with ThreadPoolExecutor() as pool:
        second = pool.submit(begin, world, ask())
        wait_until(lambda: announced.waiting > 0, description="the call that waits for a place")
        answer.close()
        answer = second.result(60)
    assert announced.waiting == 0
    world.engine.gate.clear()
    with ThreadPoolExecutor() as pool:
        reading = pool.submit(list, answer)
        wait_until(lambda: announced.waiting > 0, description="the call that waits for a piece")
        world.engine.gate.set()
        assert len(reading.result(60)) == 3
    assert announced.waiting == 0


def test_a_call_that_fails_or_goes_away_waits_no_longer() -> None:
    announced = Announced()
    world = make_world(announce_call=announced)
    with pytest.raises(InvalidArgument):
        begin(world, ask(temperature=9))
    with pytest.raises(NotFound):
        begin(world, ask("nobody"))
    world.engine.fails = Unavailable(Reason.ENGINE_FAILED, "The engine could not answer. Retry.")
    with pytest.raises(Unavailable):
        finish(world, ask())
    assert announced.waiting == 0


def test_scoring_waits_for_the_model_too() -> None:
    announced, seen = Announced(), []

    class Engine(FakeEngine):
        def score(self, messages: Sequence[ChatMessage], completion: str, adapter: str) -> Score:
            seen.append(announced.waiting)
            return super().score(messages, completion, adapter)

    world = make_world(engine=Engine(), announce_call=announced)
    rows = [RowToScore((USER,), "It holds."), RowToScore((USER,), "It does not.")]
    handlers.score(world.inference, EVALUATION, "base", rows, lambda: False)
    assert (seen, announced.waiting) == ([1, 1], 0)


def test_answers_and_publishes_a_draft_without_text() -> None:
    world = make_world()
    answer = finish(world, ask())
    assert (answer.text, answer.finish_reason, answer.prompt_tokens, answer.completion_tokens) == (
        "word word word ",
        "length",
        4,
        3,
    )
    (draft,) = world.published.drafts
    assert (draft.draft_id, draft.key_id, draft.finish_reason) == (answer.draft_id, KEY.key_id, "length")
    assert "word" not in repr(draft) and "Position" not in repr(draft)


def test_digests_depend_on_key_prompt_and_answer() -> None:
    world = make_world()
    for question in (ask(), ask(), ask("base", ChatMessage("user", "Another one."))):
        finish(world, question)
    first, again, other = world.published.drafts
    assert first.prompt.prompt_digest == again.prompt.prompt_digest != other.prompt.prompt_digest
    assert first.answer_digest == other.answer_digest != first.prompt.prompt_digest
    assert len(first.prompt.prompt_digest) == 64


def test_evaluation_leaves_no_draft_and_the_console_does() -> None:
    world = make_world()
    assert finish(world, ask(), EVALUATION).draft_id.startswith("drf_")
    assert not world.published.drafts
    finish(world, ask(), CONSOLE)
    assert len(world.published.drafts) == 1


def test_a_specialist_that_nothing_serves_yet_is_not_called_unknown() -> None:
    world = make_world()
    world.inference.definitions.define("reports", base="tiny")
    world.inference.definitions.define("letters", base="huge")
    refusals = {}
    for model in ("reports", "letters"):
        with pytest.raises(FailedPrecondition) as caught:
            begin(world, ask(model))
        assert caught.value.reason == "NOT_SERVING"
        refusals[model] = caught.value.message
    assert "`tailor adapter list --specialist reports`" in refusals["reports"]
    # Its base is of no account: replicas of that one would have nothing to answer with either.
    assert "`tailor adapter list --specialist letters`" in refusals["letters"]
    with pytest.raises(NotFound):
        begin(world, ask("reports"), Caller("key", "team", frozenset({"memos"}), "key_2"))
    world.inference.definitions.forget("reports")
    with pytest.raises(NotFound):
        begin(world, ask("reports"))
    apply_serving(world, served("letters", 1, "a"))
    assert finish(world, ask("letters")).served.specialist == "letters"


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ((ChatMessage("user", " "),), "messages[0].content"),
        ((ChatMessage("user", "a"), ChatMessage("assistant", "b")), "messages[1].role"),
        ((ChatMessage("robot", "a"), ChatMessage("user", "b")), "messages[0].role"),
        ((ChatMessage("user", "a"), ChatMessage("system", "b"), ChatMessage("user", "c")), "messages[1].role"),
        ((ChatMessage("user", "a"),) * 65, "messages"),
    ],
)
def test_refuses_a_bad_chat_and_names_the_field(messages: tuple[ChatMessage, ...], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        begin(make_world(), ask("base", *messages))
    assert field in caught.value.field_violations


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 2.5),
        ("temperature", float("nan")),
        ("top_p", 0.0),
        ("max_tokens", -1),
        ("stop", ("a",) * 5),
        ("stop", ("",)),
        ("seed", -1),
    ],
)
def test_refuses_bad_sampling(name: str, value: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        begin(make_world(), ask("base", **{name: value}))
    assert list(caught.value.field_violations) == [f"sampling.{name}"]


@pytest.mark.parametrize(
    "schema",
    [
        "no json",
        "[" * 9000,
        '["object"]',
        '{"description": "' + "a" * 16_384 + '"}',
        '{"items": ' * 32 + "{}" + "}" * 32,
        '{"type": "array", "minItems": 1025}',
        '{"properties": {"a": {"anyOf": [{"maxLength": 1e9}]}}}',
        '{"x-guidance": {"whitespace_flexible": true}}',
        '{"allOf": [{"pattern": "^a"}, {"allOf": [{"pattern": "b$"}]}]}',
        '{"pattern": "^((a{2})*b){3,}$"}',
        '{"oneOf": []}',
    ],
)
def test_refuses_an_invalid_or_costly_schema_before_it_takes_a_place(schema: str) -> None:
    world = make_world(max_concurrent=1, max_queued=0)
    with pytest.raises(InvalidArgument) as caught:
        begin(world, ask(schema=schema))
    assert list(caught.value.field_violations) == ["json_schema"]
    finish(world, ask(schema='{"properties": {"maxLength": {"type": "string", "maxLength": 1024}}}'))


def test_refuses_stop_texts_with_a_schema_and_too_many_top_log_probabilities() -> None:
    with pytest.raises(InvalidArgument) as caught:
        begin(make_world(), ask(schema="{}", stop=("}",), top_log_probabilities=21))
    assert set(caught.value.field_violations) == {"sampling.stop", "top_log_probabilities"}


def test_giving_a_schema_up_is_an_error_and_frees_the_place() -> None:
    world = make_world(max_concurrent=1, max_queued=0)
    world.engine.fails = FailedPrecondition(Reason.SCHEMA_GIVEN_UP, "The engine could not follow the schema.")
    with pytest.raises(FailedPrecondition):
        finish(world, ask(schema="{}"))
    world.engine.fails = None
    finish(world, ask())


def test_refuses_a_chat_of_too_many_characters() -> None:
    with pytest.raises(InvalidArgument) as caught:
        begin(make_world(), ask("base", ChatMessage("user", "a" * 1_000_001)))
    assert list(caught.value.field_violations) == ["messages"]


def test_refuses_a_prompt_over_the_context_length_with_both_counts() -> None:
    with pytest.raises(InvalidArgument) as caught:
        begin(make_world(), ask("base", ChatMessage("user", "w " * 64)))
    assert caught.value.reason == "PROMPT_TOO_LONG"
    assert caught.value.metadata == {"prompt_tokens": "64", "context_length": "64"}


def test_generates_no_more_tokens_than_fit() -> None:
    answer = finish(make_world(), ask("base", ChatMessage("user", "w " * 60), max_tokens=30))
    assert answer.completion_tokens == 4


def test_only_evaluation_may_ask_a_candidate() -> None:
    world = make_world()
    model = handlers.load_candidate(world.models, adapter("c")).model
    assert model == "adapter:c"
    finish(world, ask(model), EVALUATION)
    assert world.engine.streams[-1].adapter == "c"
    for caller in (KEY, CONSOLE):
        with pytest.raises(NotFound):
            begin(world, ask(model), caller)


def test_compares_a_candidate_with_the_trainers_measurements() -> None:
    world = make_world()
    assert handlers.load_candidate(world.models, adapter("c")).parity is None
    world.engine.nats = -2.0
    for stored, parity in (((-2.0, -2.0), 0.0), ((-2.5, -1.9), 0.5), ((-2.5, -1.0), 1.0)):
        world.library.probe_rows = [Probe((1, 2, 3, 4), 2, nats) for nats in stored]
        assert handlers.load_candidate(world.models, adapter("c")).parity == pytest.approx(parity)


@pytest.mark.parametrize("order", [1, -1])
def test_treats_nan_as_the_largest_difference(order: int) -> None:
    world = make_world()
    world.library.probe_rows = [Probe((1, 2, 3), 1, float("nan")), Probe((1, 2, 3), 1, -9.0)][::order]
    assert math.isnan(handlers.load_candidate(world.models, adapter("c")).parity or 0.0)


def test_a_rollback_loads_nothing_while_the_earlier_adapter_has_its_slot() -> None:
    world = make_world(slots=2)
    apply_serving(world, served("reports", 1, "a"))
    apply_serving(world, served("reports", 2, "b"))
    # From here on a load would fail.
    world.library.down = True
    apply_serving(world, served("reports", 3, "a"))
    assert [report.refusal for report in world.published.reports] == ["", "", ""]
    assert world.engine.unloaded == []
    assert finish(world, ask("reports")).served.generation == 3
    assert world.engine.streams[-1].adapter == "a"


def test_a_specialists_system_prompt_comes_first_unless_the_chat_has_one() -> None:
    world = make_world()
    apply_serving(world, served("reports", 1, "a", "House style."))
    finish(world, ask("reports"))
    finish(world, ask("reports", ChatMessage("system", "Mine."), USER))
    finish(world, ask("base"))
    system = ChatMessage("system", "House style.")
    assert world.engine.encoded == [(system, USER), (ChatMessage("system", "Mine."), USER), (USER,)]


def test_an_abandoned_answer_frees_its_place_and_publishes_its_draft() -> None:
    world = make_world(max_concurrent=1, max_queued=0)
    pieces = iter(begin(world, ask(max_tokens=50)))
    next(pieces)
    del pieces
    assert world.published.drafts[0].finish_reason == "cancelled"
    finish(world, ask())


def test_a_caller_that_goes_away_while_waiting_leaves_the_queue() -> None:
    world = make_world(max_concurrent=1, max_queued=1)
    first = begin(world, ask())
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(Aborted):
        handlers.generate(world.inference, KEY, ask(), cancellation)
    first.close()
    finish(world, ask())


def test_waiting_calls_are_served_in_order() -> None:
    world = make_world(max_concurrent=1, max_queued=4)
    first = begin(world, ask())
    order: list[int] = []

    def wait(number: int) -> None:
        answer = begin(world, ask())
        order.append(number)
        answer.close()

    threads = []
    for number in range(3):
        threads.append(threading.Thread(target=wait, args=(number,)))
        threads[-1].start()
        wait_until(lambda number=number: len(world.inference.admission._queue) == number + 1)  # type: ignore[misc]
    first.close()
    for thread in threads:
        thread.join(60)
    assert order == [0, 1, 2]


def test_a_new_generation_is_loaded_before_the_name_switches_and_running_streams_keep_theirs() -> None:
    world = make_world()
    apply_serving(world, served("reports", 1, "a"))
    world.engine.gate.clear()
    running = begin(world, ask("reports"))
    apply_serving(world, served("reports", 2, "b"))
    assert set(world.engine.loaded) == {"a", "b"}
    world.engine.gate.set()
    list(running)
    assert world.engine.streams[0].adapter == "a"
    assert running.served.generation == 1
    assert finish(world, ask("reports")).served.generation == 2
    assert [(report.served.generation, report.refusal) for report in world.published.reports] == [(1, ""), (2, "")]


def test_an_older_generation_is_ignored() -> None:
    world = make_world()
    for generation, name in ((2, "b"), (1, "a"), (2, "c")):
        apply_serving(world, served("reports", generation, name))
    assert set(world.engine.loaded) == {"b"}
    assert len(world.published.reports) == 1


def test_the_old_generation_continues_to_serve_when_the_next_is_refused() -> None:
    world = make_world()
    world.library.bad = {"b"}
    apply_serving(world, served("reports", 1, "a"))
    apply_serving(world, served("reports", 2, "b"))
    assert finish(world, ask("reports")).served.generation == 1
    assert [(report.served.generation, report.refusal) for report in world.published.reports] == [
        (1, ""),
        (2, "WRONG_BASE"),
    ]


def test_a_generation_can_be_applied_again_after_a_lost_store_or_broker() -> None:
    world = make_world()
    world.library.down = True
    with pytest.raises(Unavailable):
        apply_serving(world, served("reports", 1, "a"))
    world.library.down = False
    world.published.down = True
    with pytest.raises(Unavailable):
        apply_serving(world, served("reports", 1, "a"))
    world.published.down = False
    apply_serving(world, served("reports", 1, "a"))
    assert [report.refusal for report in world.published.reports] == [""]


def test_refuses_a_specialist_with_the_bases_name() -> None:
    world = make_world()
    apply_serving(world, served("base", 1, "a"))
    assert world.published.reports[0].refusal == "RESERVED_NAME"
    assert finish(world, ask("base")).served.adapter is None


def test_evicts_the_least_recently_used_idle_adapter() -> None:
    world = make_world(slots=2, wait_seconds=0.05)
    for name in ("a", "b"):
        apply_serving(world, served(name, 1, name))
    world.engine.gate.clear()
    using_a = begin(world, ask("a"))
    apply_serving(world, served("c", 1, "c"))
    assert world.engine.unloaded == ["b"]
    using_c = begin(world, ask("c"))
    with pytest.raises(ResourceExhausted) as caught:
        begin(world, ask("b"))
    assert caught.value.reason == "NO_FREE_SLOT"
    using_a.close()
    using_c.close()
    world.engine.gate.set()
    finish(world, ask("b"))
    assert set(world.engine.loaded) == {"b", "c"}


class NamingEngine(FakeEngine):
    """Answers with its adapter's name, and fails if an adapter in use is unloaded."""

    def unload(self, digest: str) -> None:
        assert not [stream for stream in self.streams if stream.adapter == digest and not stream.cancelled.is_set()]
        super().unload(digest)

    def text(self, adapter: str) -> str:
        return adapter


def test_more_specialists_than_slots_answer_with_their_own_adapters_under_load() -> None:
    world = make_world(slots=3, max_concurrent=3, max_queued=64, engine=NamingEngine())
    names = [f"s{number}" for number in range(9)]
    for name in names:
        apply_serving(world, served(name, 1, f"adapter-{name}"))

    def answers_right(number: int) -> bool:
        name = names[number % 7 * number % len(names)]
        return finish(world, ask(name)).text == f"adapter-{name}"

    with ThreadPoolExecutor(8) as callers:
        assert all(callers.map(answers_right, range(300)))
    assert len(world.engine.loaded) == 3
    assert len(world.engine.unloaded) > 20


def test_scores_rows_in_order_and_stops_when_the_caller_leaves() -> None:
    world = make_world()
    rows = [RowToScore((USER,), "one"), RowToScore((USER,), "two words")]
    scores = handlers.score(world.inference, EVALUATION, "base", rows, lambda: False)
    assert [(score.log_probability, score.tokens) for score in scores] == [(-3.0, 2), (-9.0, 3)]
    assert handlers.score(world.inference, EVALUATION, "base", rows, lambda: True) == []


def test_refuses_rows_without_an_answer() -> None:
    with pytest.raises(InvalidArgument) as caught:
        handlers.score(make_world().inference, EVALUATION, "base", [RowToScore((USER,), " ")], lambda: False)
    assert "rows[0].completion" in caught.value.field_violations


def test_transcripts_do_not_contain_the_specialists_own_system_prompt() -> None:
    world = make_world()
    apply_serving(world, served("reports", 1, "a", "House style."))
    finish(world, ask("reports"))
    finish(world, ask("reports", ChatMessage("system", "Mine."), USER))
    finish(world, ask("reports"), EVALUATION)
    (first, transcript), (_, other) = world.archive.offered
    assert (transcript.messages, transcript.answer) == ((USER,), "word word word ")
    assert other.messages == (ChatMessage("system", "Mine."), USER)
    finish(world, ask("base"))
    digests = [draft.prompt.prompt_digest for draft in world.published.drafts]
    assert digests[0] == digests[2] != digests[1]
    assert first == world.published.drafts[0]


def record(key_id: str = KEY.key_id, specialist: str = "reports", text: Ref | None = None) -> DraftRecord:
    return DraftRecord(
        Draft("drf_1", served(specialist, 1), key_id, PromptRecord("a"), "b", 1, 2, "stop", 0.1, 0.2, text), "tiny"
    )


def test_a_caller_sees_its_own_drafts_and_an_expert_those_of_its_specialists() -> None:
    world = make_world()
    caller = Caller("key", "team", frozenset(), "key_1", CALLER_ROLE)
    expert = Caller("key", "expert", frozenset({"reports"}), "key_2", "ROLE_EXPERT")
    for draft_record, may in (
        (record("key_1"), (True, True)),
        (record("key_9"), (False, True)),
        (record("key_1", "memos"), (True, False)),
        (record("key_9", ""), (False, True)),
    ):
        world.archive.records["drf_1"] = draft_record
        for asker, admitted in zip((caller, expert), may, strict=True):
            if admitted:
                assert handlers.get_draft(world.inference.archive, asker, "drf_1") == (draft_record, None)
                continue
            with pytest.raises(NotFound) as hidden:
                handlers.get_draft(world.inference.archive, asker, "drf_1")
            with pytest.raises(NotFound) as unknown:
                handlers.get_draft(world.inference.archive, asker, "drf_2")
            assert hidden.value.message == unknown.value.message


def test_feedback_is_stored_for_a_draft_that_the_caller_may_see() -> None:
    world = make_world()
    caller = Caller("key", "team", frozenset(), "key_1", CALLER_ROLE)
    world.archive.records["drf_1"] = record("key_1")
    said = DraftFeedback("drf_1", "edited", "Better.", 4, "Shorter.")
    assert handlers.record_feedback(world.inference.archive, caller, said).feedback_id == "fbk_1"
    assert world.archive.feedback == [(said, "key_1")]
    world.archive.records["drf_1"] = record("key_9")
    for draft_id in ("drf_1", "drf_2"):
        with pytest.raises(NotFound):
            handlers.record_feedback(world.inference.archive, caller, replace(said, draft_id=draft_id))
    assert len(world.archive.feedback) == 1


def test_an_outcome_is_stored_for_a_draft_that_the_caller_may_see() -> None:
    world = make_world()
    caller = Caller("key", "team", frozenset({"reports"}), "key_1", CALLER_ROLE)
    world.archive.records["drf_1"] = record("key_1")
    worth = OutcomeReport("drf_1", minutes=25, satisfaction=4)
    assert handlers.report_outcome(world.inference.archive, caller, worth).generation == 3
    assert world.archive.outcomes == [(worth, "key_1")]
    world.archive.records["drf_1"] = record("key_9")
    for draft_id in ("drf_1", "drf_2"):
        with pytest.raises(NotFound):
            handlers.report_outcome(world.inference.archive, caller, replace(worth, draft_id=draft_id))
    assert len(world.archive.outcomes) == 1


def test_work_without_a_draft_is_reported_for_the_callers_own_specialists() -> None:
    world = make_world()
    caller = Caller("key", "team", frozenset({"reports", "never-created"}), "key_1", CALLER_ROLE)
    baseline = OutcomeReport(specialist="reports", request_id="a", minutes=90)
    assert handlers.report_outcome(world.inference.archive, caller, baseline).generation == 0
    errors = []
    for name in ("never-created", "memos"):
        with pytest.raises(NotFound) as refused:
            handlers.report_outcome(world.inference.archive, caller, replace(baseline, specialist=name))
        errors.append((refused.value.reason, refused.value.message, refused.value.field_violations))
    assert errors[0] == errors[1]
    assert len(world.archive.outcomes) == 1


def test_a_stored_prompt_is_answered_again_for_the_same_prompt_and_its_text_is_not_anonymised_twice() -> None:
    world = make_world()
    apply_serving(world, served("reports", 1, "a", "You write memos."))
    text = world.archive.texts.put(Transcript((USER,), "Clean."))
    world.archive.records["drf_1"] = record(text=text)
    answer = handlers.regenerate_draft(world.inference, KEY, "drf_1", Cancellation())
    for _ in answer:
        pass
    ((draft, transcript),) = world.archive.offered
    assert (draft.draft_id, draft.prompt) == (answer.draft_id, world.archive.records["drf_1"].draft.prompt)
    assert (transcript.messages, transcript.anonymized) == ((USER,), True)
    assert world.engine.streams[-1].sampling.temperature > 0


def test_a_prompt_that_is_not_stored_is_not_answered_again() -> None:
    world = make_world()
    apply_serving(world, served("reports", 1, "a"))
    world.archive.records["drf_1"] = record()
    with pytest.raises(FailedPrecondition) as refused:
        handlers.regenerate_draft(world.inference, KEY, "drf_1", Cancellation())
    assert refused.value.reason == "DRAFT_WITHOUT_TEXT"
    with pytest.raises(NotFound):
        handlers.regenerate_draft(world.inference, KEY, "drf_2", Cancellation())
