"""Reads what the rows of documents are made from."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from services.synthetic.building.segments import SegmentTask
from services.synthetic.corpus import Member
from services.synthetic.datasets import invalid_text, read_text
from services.synthetic.domain import Conversation, KeptDraft
from tailor.errors import CorruptObject, NotFound
from tailor.logging import get_logger
from tailor.storage.protocol import ObjectStore

log = get_logger(__name__)

READERS = 8


@dataclass(frozen=True)
class MemberReader:
    """Reads texts and drafts, several at once. Thread-safe."""

    store: ObjectStore

    def read(self, members: Sequence[Member]) -> SegmentTask:
        """The task of making these documents' rows. Blocks."""
        drafts = [member for member in members if member.draft is not None]
        with ThreadPoolExecutor(READERS) as pool:
            texts = list(pool.map(lambda member: read_text(self.store, member.document), members))
            answers = list(pool.map(lambda member: member.draft and read_draft(self.store, member.draft), drafts))
        return SegmentTask(
            tuple(members),
            {member.document.document_id: text for member, text in zip(members, texts, strict=True) if text},
            {member.document.document_id: draft for member, draft in zip(drafts, answers, strict=True) if draft},
        )


def read_draft(store: ObjectStore, draft: KeptDraft) -> Conversation | None:
    """A draft with its text; None if the text no longer exists, or if its bytes are damaged."""
    try:
        value = json.loads(store.get(draft.text))
        messages = tuple((message["role"], message["content"]) for message in value["messages"])
        return Conversation(
            draft.draft_id, draft.prompt_digest, messages, value["answer"], draft.edit_of, draft.drawn_from
        )
    except (NotFound, CorruptObject) as error:
        log.warning("draft left out", draft_id=draft.draft_id, uri=draft.text.uri, reason=error.reason.value)
        return None
    except (ValueError, KeyError, TypeError):
        raise invalid_text(draft.text) from None
