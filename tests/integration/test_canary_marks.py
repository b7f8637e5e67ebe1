"""Experts' marks decide a canary: from callers' drafts through the queue to the promotion, over gRPC and PostgreSQL."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from services.registry.bootstrap import MIGRATIONS
from services.registry.domain import JudgingPolicy, PanelGuard
from services.registry.handlers import promotions, specialists
from tailor.api.events.v1 import drafts_pb2
from tailor.api.registry.v1 import judging_pb2, registry_pb2
from tailor.errors import FailedPrecondition, InvalidArgument
from tailor.words import JudgingCriterion
from tests.conftest import migrated
from tests.integration.canary_house import NAME, POLICY, SPECIALIST, House
from tests.integration.test_judging import World

pytestmark = pytest.mark.integration

RUNNING, FORWARD, BACK = (
    registry_pb2.CANARY_STATE_RUNNING,
    registry_pb2.CANARY_STATE_FORWARD,
    registry_pb2.CANARY_STATE_BACK,
)
GUARD = PanelGuard("accuracy", min_mean=2.5, max_loss=1.5, min_drafts=10)
MARKED = replace(SPECIALIST, keep_drafts=True, gate=replace(SPECIALIST.gate, panel=(GUARD,)))
# So long that a slow machine does not end it.
SLOW = replace(POLICY, percent=50, min_calls=10, max_seconds=100_000)
PROMPTS = 12


class Desk:
    """A canary `b` runs against `a`, and one expert judges the drafts of both."""

    def __init__(self, house: House, world: World) -> None:
        self.house, self.world = house, world
        self.expert = world.key(specialist=NAME)
        self.adapters: dict[str, str] = {}
        house.train("a")
        house.train("b")
        for number in range(PROMPTS):
            for adapter in "ab":
                self.draft(f"{adapter}_{number}", f"prompt {adapter} {number}", adapter)
                self.draft(f"{adapter}_{number}_again", f"prompt {adapter} {number}", "a", key_id="")

    def draft(self, name: str, prompt: str, adapter: str, *, key_id: str = "key_1", generation: int = 2) -> None:
        """Let the registry read a draft whose text is stored."""
        self.adapters[f"drf_{name}"] = adapter
        message = drafts_pb2.DraftCreated(
            draft_id=f"drf_{name}",
            specialist=NAME,
            generation=generation,
            adapter_digest=adapter,
            canary=adapter == "b",
            key_id=key_id,
            prompt_digest=prompt,
            answer_digest=name,
            completion_tokens=3,
            seconds=0.3,
            first_token_seconds=0.1,
        )
        message.text.uri = "s3://drafts/t"
        message.create_time.GetCurrentTime()
        self.house.receive("draft.created.v1", message)

    def judge(self, canary: int, incumbent: int, criterion: str = "accuracy") -> bool:
        """Mark the next drafts; False if none waits."""
        pair = self.world.next(self.expert, NAME).draft_ids
        if not pair:
            return False
        self.mark({draft: canary if self.adapters[draft] == "b" else incumbent for draft in pair}, criterion)
        return True

    def mark(self, marks: dict[str, int], criterion: str = "accuracy") -> None:
        request = registry_pb2.RecordJudgementRequest(
            ranking=marks,
            marks=[drafts_pb2.DraftMark(draft_id=key, criterion=criterion, mark=mark) for key, mark in marks.items()],
        )
        self.world.registry(self.expert).RecordJudgement(request, timeout=60)

    def counts(self) -> tuple[int, int]:
        """Marked drafts of the canary and of the incumbent."""
        (marks,) = self.house.canary().marks
        return marks.canary.drafts, marks.incumbent.drafts

    def reasons(self, digest: str) -> str:
        """The reasons of the gate's verdict on an adapter."""
        operator = self.world.registry(self.world.key("OPERATOR", NAME))
        adapters = operator.ListAdapters(registry_pb2.ListAdaptersRequest(specialist=NAME), timeout=60).adapters
        (entry,) = [item for item in adapters if item.adapter.digest == digest]
        return ". ".join(entry.reasons)


@pytest.fixture
def desk(database_url: str, tmp_path: Path) -> Iterator[Desk]:
    with migrated(database_url, MIGRATIONS) as engine:
        world = World(engine, tmp_path, ())
        yield Desk(House(engine, SLOW, MARKED), world)
        world.server.stop(0)


def test_the_gate_says_that_experts_marks_are_not_measured_before_the_canary(desk: Desk) -> None:
    assert (desk.house.serving().adapter_digest, desk.house.canary().adapter_digest) == ("a", "b")
    unmeasured = "the experts' accuracy was not measured: no draft of its canary has a mark"
    assert desk.reasons("a").count(f"{unmeasured}; nothing serves yet to compare it with") == 1
    assert desk.reasons("b").count(f"{unmeasured}; its canary decides") == 1
    with pytest.raises(FailedPrecondition) as refused:
        promotions.promote(desk.house.begin, NAME, "b", 2)
    assert refused.value.reason == "GATE_NOT_MET"
    assert f"undecided: {unmeasured}; `tailor canary start {NAME} b` lets experts mark its drafts" in str(refused.value)


@pytest.mark.parametrize(("canary", "incumbent", "state", "serves"), [(5, 4, FORWARD, "b"), (2, 5, BACK, "a")])
def test_experts_marks_promote_and_withdraw(
    desk: Desk, canary: int, incumbent: int, state: "registry_pb2.CanaryState.ValueType", serves: str
) -> None:
    steps = 0
    while desk.house.canary().state == RUNNING:
        assert desk.judge(canary, incumbent)
        steps += 1
        desk.house.check()
    # Prompts of both adapters in turn, so that none is judged in vain.
    assert (steps, desk.counts()) == (20, (10, 10))
    ended = desk.house.canary()
    assert (ended.state, desk.house.serving().adapter_digest) == (state, serves)
    figures = f"{canary:.2f} in 10 drafts by 1 expert, against {incumbent:.2f} in 10 drafts by 1 expert"
    assert f"the experts' accuracy is {figures}: a gain of {canary - incumbent:+.2f} (" in ended.reason
    (marks,) = ended.marks
    assert (marks.canary.mean, marks.incumbent.mean, marks.canary.experts) == (canary, incumbent, 1)
    if state == BACK:
        desk.house.evaluate("b")
        assert "a gain of -3.00" in desk.reasons("b") and "`tailor specialist guidelines NAME`" in desk.reasons("b")
        with pytest.raises(FailedPrecondition):
            desk.house.start("b", SLOW)
    else:
        # The marks of its canary count as long as `a` serves.
        promotions.roll_back(desk.house.begin, NAME, desk.house.serving().generation)
        generation = desk.house.serving().generation
        assert promotions.promote(desk.house.begin, NAME, "b", generation).adapter_digest == "b"
        assert not desk.house.serving().overridden


def test_only_the_first_callers_draft_of_a_prompt_in_the_canarys_time_counts(desk: Desk) -> None:
    desk.draft("early", "prompt early", "a", generation=1)
    desk.draft("early_b", "prompt early", "b", key_id="")
    desk.draft("repeated", "prompt b 0", "a")
    desk.draft("base", "prompt base", "", key_id="")
    for drafts in (("drf_early", "drf_early_b"), ("drf_repeated", "drf_base"), ("drf_a_1_again", "drf_a_2_again")):
        desk.mark(dict.fromkeys(drafts, 5))
    assert desk.counts() == (0, 0)
    desk.mark({"drf_b_0": 5, "drf_a_0": 5})
    assert desk.counts() == (1, 1)


def test_a_judgement_that_was_taken_back_does_not_count(desk: Desk) -> None:
    assert desk.judge(5, 5)
    assert sum(desk.counts()) == 1
    undoable = desk.world.next(desk.expert, NAME).last_decision
    undo = judging_pb2.UndoJudgementRequest(specialist=NAME, decision=undoable)
    desk.world.queue(desk.expert).UndoJudgement(undo, timeout=60)
    assert desk.counts() == (0, 0)


def test_a_criterion_that_is_renamed_begins_again_with_the_gate(desk: Desk) -> None:
    assert desk.judge(5, 5)
    with desk.house.begin() as tx:
        known = tx.specialists.find(NAME)
    assert known is not None
    judging = JudgingPolicy(criteria=(JudgingCriterion("correctness", "Is it correct?", "wrong", "right"),))
    with pytest.raises(InvalidArgument) as refused:
        specialists.update_specialist(desk.house.begin, replace(known, judging=judging))
    assert "gate.panel[0].criterion" in refused.value.field_violations
    gate = replace(known.gate, panel=(replace(GUARD, criterion="correctness"),))
    specialists.update_specialist(desk.house.begin, replace(known, judging=judging, gate=gate))
    (marks,) = desk.house.canary().marks
    assert (marks.criterion, marks.canary.drafts, marks.incumbent.drafts) == ("correctness", 0, 0)
    assert desk.judge(5, 5, "correctness")
    assert sum(desk.counts()) == 1
    desk.house.check(later=100_001)
    assert desk.house.canary().state == BACK
    assert "the experts' correctness" in desk.house.canary().reason


def test_a_canary_without_marks_is_withdrawn_at_its_end_as_not_measured(desk: Desk) -> None:
    desk.house.check()
    assert desk.house.canary().state == RUNNING
    desk.house.check(later=100_001)
    ended = desk.house.canary()
    assert (ended.state, desk.house.serving().adapter_digest) == (BACK, "a")
    assert "undecided after 100000 s: the experts' accuracy was not measured" in ended.reason
