"""What tests of critiques share: commented drafts in a house of syntheses, and a scripted teacher and judge."""

import json
import re
from dataclasses import replace
from typing import Any

from services.synthetic.consumers import Consumers
from services.synthetic.domain import Specialist
from services.synthetic.rows.preference_rows import PairLimits
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import drafts_pb2
from tailor.events.envelope import Event
from tailor.rounds import is_held_out
from tests.synthesis import SPECIALIST, Reply, SynthesisHouse, distinct

CRITIC = replace(SPECIALIST, keep_drafts=True, stages=("sft", "dpo"), guidelines="Short sentences.")
TRAIN = [f"prompt{number}" for number in range(200) if not is_held_out(f"prompt{number}", 12)]
HELD_OUT = [f"prompt{number}" for number in range(200) if is_held_out(f"prompt{number}", 12)]


def answer_of(prompt: str, side: str = "good") -> str:
    """The text of a draft, with a figure."""
    return f"{side} {distinct(int(prompt.removeprefix('prompt')), 20)} costs 12 euros."


def part(body: dict[str, Any], name: str) -> str:
    """A part of the request's last message."""
    match = re.search(f"<<<{name}\n(.*?)\n{name}>>>", body["messages"][-1]["content"], re.DOTALL)
    return match[1] if match else ""


def revise(number: int, body: dict[str, Any]) -> Reply:
    """The draft with a sentence more, or the verdict that all is well."""
    del number
    if part(body, "REVISION"):
        return Reply(json.dumps({"follows": True, "keeps_facts": True}))
    return Reply(json.dumps({"text": f"{part(body, 'DRAFT')} Kindly yours."}))


class CritiqueHouse(SynthesisHouse):
    """A house of syntheses whose events are consumed as the service does, and which builds datasets."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.app = replace(self.app, pair_limits=PairLimits(min_train_rows=1, min_held_out_rows=0))
        self.consumers = Consumers(self.app)

    def define(self, specialist: Specialist) -> None:
        """Change the specialist."""
        self.specialist = specialist
        self.app.specialists[specialist.name] = specialist

    def draft(self, prompt: str, side: str = "good", *, specialist: str = "reports", adapter: str = "a" * 64) -> str:
        """Publish a draft; those of the base (without a specialist) have no stored text."""
        message = drafts_pb2.DraftCreated(
            draft_id=f"drf_{prompt}_{side}", specialist=specialist, prompt_digest=prompt, adapter_digest=adapter
        )
        if specialist:
            messages = [{"role": "user", "content": f"Write about {prompt}."}]
            data = json.dumps({"messages": messages, "answer": answer_of(prompt, side)}).encode()
            ref = self.store.put("drafts", f"texts/{message.draft_id}.json", data)
            message.text.CopyFrom(common_pb2.ObjectRef(uri=ref.uri, sha256=ref.sha256, size_bytes=ref.size_bytes))
        self.consumers.draft(Event("draft.created.v1", message.draft_id, message.SerializeToString()))
        return message.draft_id

    def judge_drafts(self, prompt: str, comment: str = "Close more kindly.", **changes: Any) -> str:
        """Publish two drafts and a judgement of them; returns its id."""
        good, bad = self.draft(prompt), self.draft(prompt, "bad")
        values: dict[str, Any] = {"ranking": [good, bad], "comment": comment} | changes
        judgement_id = f"jdg_{prompt}"
        self.record(drafts_pb2.JudgementRecorded(judgement_id=judgement_id, specialist="reports", **values))
        return judgement_id

    def record(self, judgement: drafts_pb2.JudgementRecorded) -> None:
        self.consumers.judgement(Event("judgement.recorded.v1", "reports", judgement.SerializeToString()))

    def retract(self, judgement_id: str) -> None:
        self.record(
            drafts_pb2.JudgementRecorded(judgement_id=judgement_id, specialist=self.specialist.name, retracted=True)
        )

    def critique(self, **changes: Any) -> Any:
        """Run a synthesis of critiques until it ends or pauses, and return it."""
        return self.run(**({"task": "critique", "instruction": "", "target": 100} | changes))

    def pairs(self) -> list[dict[str, Any]]:
        """The critique pairs of a dataset of rankings built now."""
        specialist = self.app.specialists[self.specialist.name]
        evidence = self.repository.pair_evidence(specialist)
        return [
            {"judgement": entry.judgement_id, "draft": entry.draft_id, "text": entry.text}
            for entry in evidence.revisions
        ]
