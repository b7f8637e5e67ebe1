"""Rows of drafts that experts edited: the edited text as the answer to the draft's chat, as if it were a deliverable."""

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, replace

from services.synthetic.adapters.sql import SqlRepository
from services.synthetic.datasets import read_draft
from services.synthetic.domain import Conversation, Grounding, RankedEdit, Row, RowOrigin, Specialist, fingerprint
from services.synthetic.ports import ExtraRows, Tokenizers
from services.synthetic.rows.budget import count_tokens
from services.synthetic.rows.people_rows import DELIVERABLE
from tailor.rounds import is_held_out
from tailor.storage.protocol import ObjectStore

VERSION = 2


@dataclass(frozen=True)
class EditedRows(ExtraRows):
    """One row to train on of each edited draft that an expert ranked first, unless its prompt's pairs are held out.

    None is held out: most of an edited text was written by one adapter, which finds it likelier than any other one does, so these rows
    would count against every candidate that is compared with that adapter. What the expert thinks is measured by the pairs.

    A deliverable that was made from the same draft takes its place. Edited texts do not make a dataset due by themselves.
    """

    drafts: SqlRepository
    store: ObjectStore
    tokenizers: Tokenizers
    erased: Container[str] = frozenset()

    def rows(self, specialist: Specialist, on_unreadable: Callable[[int], None] = lambda rows: None) -> Iterator[Row]:
        """Those that fit the specialist's rows, sorted by id. Raises what `Tokenizers.for_base` and the store raise."""
        edits = [edit for edit in self._list(specialist) if not _is_held_out(edit, specialist)]
        if not edits:
            return
        read = ((edit, read_draft(self.store, edit.draft)) for edit in edits)
        rows = [_make_row(specialist, edit, conversation) for edit, conversation in read if conversation is not None]
        rows.sort(key=lambda row: row.row_id)
        counter = self.tokenizers.for_base(specialist.base)
        limit = min(specialist.rows.max_row_tokens or counter.context_tokens, counter.context_tokens)
        yield from (row for row in count_tokens(rows, counter) if row.tokens <= limit)

    def fingerprint(self, specialist: Specialist) -> str:
        """Changes with the edits and their texts."""
        edits = self._list(specialist)
        return fingerprint("edits", VERSION, *((edit.draft.draft_id, edit.judgement_id) for edit in edits))

    def origin(self, specialist: Specialist) -> RowOrigin:
        """The adapters that wrote what was edited: if one of them is retired, so are the datasets with the edits."""
        return RowOrigin(draft_adapters=frozenset(edit.draft.adapter_digest for edit in self._list(specialist)) - {""})

    def _list(self, specialist: Specialist) -> Sequence[RankedEdit]:
        if specialist.rows.tasks and DELIVERABLE not in specialist.rows.tasks:
            return ()
        return [edit for edit in self.drafts.ranked_edits(specialist) if edit.draft.text_id not in self.erased]


def _is_held_out(edit: RankedEdit, specialist: Specialist) -> bool:
    """True if the pairs of the edit's prompt are held out."""
    return is_held_out(edit.draft.prompt_digest, specialist.rows.held_out_percent)


def _make_row(specialist: Specialist, edit: RankedEdit, conversation: Conversation) -> Row:
    row = Row(
        task=DELIVERABLE,
        document_ids=(edit.draft.text_id, *edit.draft.drawn_from),
        messages=(*conversation.messages, ("assistant", conversation.answer.strip())),
        made_by="human",
        system_prompt=specialist.system_prompt,
        grounding=Grounding.PEOPLE,
        # The pairs of a prompt are split by its digest, and so are extra rows by their seeds.
        lineage=(
            ("judgement", edit.judgement_id),
            ("draft", edit.draft.edit_of),
            ("seeds", edit.draft.prompt_digest),
        ),
    )
    (role, content), *rest = row.messages
    return replace(row, system_prompt=content, messages=tuple(rest)) if role == "system" else row
