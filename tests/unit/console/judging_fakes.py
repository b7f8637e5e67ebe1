"""The registry's queue of drafts to judge in memory, for the console."""

from dataclasses import dataclass, field
from typing import Any

from tailor.api.events.v1 import drafts_pb2, models_pb2
from tailor.api.registry.v1 import judging_pb2, judging_pb2_grpc
from tailor.codec import encode
from tailor.errors import NotFound, Reason, Unavailable
from tailor.values import DEFAULT_JUDGING_CRITERIA, JudgingCriterion

FIRST, SECOND, LONELY, EDITED, THIRD, FOURTH = ("drf_" + digit * 32 for digit in "6789ab")
ROUND = drafts_pb2.RoundProgress(
    prompts=9, needed_prompts=42, missing_prompts=33, sentence="9 ranked prompts; a round needs 42: 33 to go."
)


@dataclass
class FakeJudgingQueue(judging_pb2_grpc.JudgingServiceServicer):
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

    def NextPair(self, request: Any, context: Any) -> Any:
        if self.down:
            raise Unavailable(Reason.UNAVAILABLE, "registry does not answer.")
        self.asked.append((request.specialist, request.judged_by))
        progress = judging_pb2.JudgingProgress(
            judged=12, waiting=28 * self.waits, incomplete=len(self.incomplete), round=ROUND
        )
        return judging_pb2.NextPairResponse(
            draft_ids=self.drafts if self.waits else (),
            progress=progress,
            incomplete_draft_ids=self.incomplete,
            last_decision=self.last_decision,
            criteria=[encode(models_pb2.JudgingCriterion, item) for item in self.criteria],
            drawn=self.drawn,
            draw_prompt=self.draw_prompt,
        )

    def UndoJudgement(self, request: Any, context: Any) -> Any:
        if not request.decision or request.decision != self.last_decision:
            raise NotFound(Reason.NOTHING_TO_UNDO, "You have no decision that can be taken back.")
        self.last_decision = ""
        self.undone.append((request.specialist, request.decision, request.judged_by))
        return judging_pb2.UndoJudgementResponse()

    def ListOwnJudgements(self, request: Any, context: Any) -> Any:
        self.asked.append((request.specialist, request.judged_by))
        start = int(request.page_token or 0)
        return judging_pb2.ListOwnJudgementsResponse(
            judgements=self.own[start : start + 2],
            next_page_token=str(start + 2) if start + 2 < len(self.own) else "",
            last_decision=self.last_decision,
        )

    def SkipPair(self, request: Any, context: Any) -> Any:
        if request.draft_id not in self.drafts:
            raise NotFound(Reason.UNKNOWN_DRAFT, "This draft does not exist.")
        self.skipped.append((request.specialist, request.draft_id, request.judged_by))
        return judging_pb2.SkipPairResponse()
