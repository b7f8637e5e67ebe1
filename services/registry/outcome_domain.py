"""What drafts were worth: reports of callers, and what became of their texts. Imports no library."""

from dataclasses import dataclass
from datetime import datetime

from tailor.storage.ref import Ref

# Work before the first promotion, or without a draft.
BASELINE = 0


@dataclass(frozen=True)
class DraftOutcome:
    """A report of a draft's worth: one for each draft and caller. Without a draft, of a text that was written without one.

    `minutes` lead from the draft to the deliverable, 0 for none; `satisfaction` is 1 to 5, 0 for none.
    """

    outcome_id: str
    draft_id: str
    specialist: str
    minutes: float
    satisfaction: int
    create_time: datetime
    generation: int = BASELINE
    adapter_digest: str = ""


@dataclass(frozen=True)
class DeliverableText:
    """A deliverable that passed the barrier, and the draft that it was made from."""

    document_id: str
    draft_id: str
    text: Ref
    create_time: datetime


@dataclass(frozen=True)
class FinalText:
    """What became of a draft. `share` is the part of its words that was kept, from 0 to 1; None if a text is not stored.

    `document_id` is the deliverable that was made from it; empty if only feedback describes it.
    """

    draft_id: str
    document_id: str
    specialist: str
    generation: int
    adapter_digest: str
    share: float | None
    create_time: datetime
