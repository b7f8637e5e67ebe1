"""The registry's queue of drafts to judge in memory, for the console."""

from collections.abc import Callable
from dataclasses import dataclass, field

from services.console.ports import JudgingQueue, PromptDraws
from tailor.api.events.v1 import drafts_pb2
from tailor.api.registry.v1 import judging_pb2
from tailor.errors import NotFound, Reason, Unavailable
from tailor.wire import from_judging_criterion
from tailor.words import DEFAULT_JUDGING_CRITERIA, JudgingCriterion

FIRST, SECOND, LONELY, EDITED, THIRD, FOURTH = ("drf_" + digit * 32 for digit in "6789ab")
ROUND = drafts_pb2.RoundProgress(
    prompts=9, needed_prompts=42, missing_prompts=33, sentence="9 ranked prompts; a round needs 42: 33 to go."
)


@dataclass
class FakeJudgingQueue(JudgingQueue):
    """The drafts of one prompt, as long as it `waits`. Remembers what was skipped, and by which key."""

    waits: bool = True
    drafts: tuple[str, ...] = (FIRST, SECOND)
    criteria: tuple[JudgingCriterion, ...] = DEFAULT_JUDGING_CRITERIA
    down: bool = False
    drawn: bool = False
    draw_prompt: bool = False
    incomplete: list[str] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)
    skipped: list[tuple[str, str, str]] = field(default_factory=list)
    last_decision: str = ""
    undone: list[tuple[str, str, str]] = field(default_factory=list)
    own: list[drafts_pb2.JudgementRecorded] = field(default_factory=list)

    def next_pair(self, specialist: str, key_id: str) -> judging_pb2.NextPairResponse:
        if self.down:
            raise Unavailable(Reason.UNAVAILABLE, "registry does not answer.")
        self.asked.append((specialist, key_id))
        progress = judging_pb2.JudgingProgress(
            judged=12, waiting=28 * self.waits, incomplete=len(self.incomplete), round=ROUND
        )
        return judging_pb2.NextPairResponse(
            draft_ids=self.drafts if self.waits else (),
            progress=progress,
            incomplete_draft_ids=self.incomplete,
            last_decision=self.last_decision,
            criteria=map(from_judging_criterion, self.criteria),
            drawn=self.drawn,
            draw_prompt=self.draw_prompt,
        )

    def undo(self, specialist: str, decision: str, key_id: str) -> None:
        if not decision or decision != self.last_decision:
            raise NotFound(Reason.NOTHING_TO_UNDO, "You have no decision that can be taken back.")
        self.last_decision = ""
        self.undone.append((specialist, decision, key_id))

    def list_own(self, specialist: str, token: str, key_id: str) -> judging_pb2.ListOwnJudgementsResponse:
        self.asked.append((specialist, key_id))
        start = int(token or 0)
        return judging_pb2.ListOwnJudgementsResponse(
            judgements=self.own[start : start + 2],
            next_page_token=str(start + 2) if start + 2 < len(self.own) else "",
            last_decision=self.last_decision,
        )

    def skip_pair(self, specialist: str, draft_id: str, key_id: str) -> None:
        if draft_id not in self.drafts:
            raise NotFound(Reason.UNKNOWN_DRAFT, "This draft does not exist.")
        self.skipped.append((specialist, draft_id, key_id))


@dataclass
class FakeDraws(PromptDraws):
    """Draws a prompt, or raises what `write` raises."""

    write: Callable[[str], str] = lambda specialist: FIRST
    drawn: list[str] = field(default_factory=list)

    def draw(self, specialist: str) -> str:
        draft_id = self.write(specialist)
        self.drawn.append(specialist)
        return draft_id
