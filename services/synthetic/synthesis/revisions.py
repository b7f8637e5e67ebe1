"""From a commented draft to its stored revision: ask the teacher, check, have it judged."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from services.synthetic.domain import CRITIQUE, Grounding, Row, Specialist
from services.synthetic.ports import SynthesisWork, TokenCounter
from services.synthetic.rows.grounding import unsupported
from services.synthetic.synthesis.answers import parse_text, parse_verdict
from services.synthetic.synthesis.checks import HeldOutTexts, find_wrong_size
from services.synthetic.synthesis.prompts import revision_messages, text_schema, verdict_messages, verdict_schema
from services.synthetic.synthesis.questions import Asker, TeacherQuestion
from services.synthetic.synthesis_domain import (
    DRAFT_ID,
    JUDGEMENT_ID,
    TEACH,
    CommentedDraft,
    Messages,
    ModelRole,
    Refusal,
    SampleState,
    StoredAnswer,
    Synthesis,
    SynthesisSample,
)

VERDICT = "verdict"
VERDICT_TOKENS = 64
# A comment may ask for a summary, or for a part that is missing, but not for another text.
MIN_SHARE, MAX_GROWTH, SPARE_CHARACTERS = 0.1, 3, 500


@dataclass(frozen=True)
class RevisionChecks:
    """The checks that cost no request."""

    specialist: Specialist
    counter: TokenCounter
    held_out: HeldOutTexts

    def refuse(self, commented: CommentedDraft, row: Row) -> Refusal | None:
        """The first reason against a revision; None if there is none."""
        revision, draft = row.completion, commented.draft.answer
        if revision.split() == draft.split():
            return Refusal.UNCHANGED
        if (size := self._wrong_size(draft, row)) is not None:
            return size
        known = "\n\n".join((commented.prompt, draft, commented.comment, self.specialist.guidelines))
        if unsupported(revision, known, row.language):
            return Refusal.UNFAITHFUL
        if unsupported(draft, f"{revision}\n\n{commented.comment}", row.language):
            return Refusal.LOST_FACTS
        return Refusal.NEAR_DUPLICATE_OF_HELD_OUT if self.held_out.has_similar(revision) else None

    def ground(self, row: Row) -> Row:
        """The row with whether its prompt supports the revision."""
        is_supported = not unsupported(row.completion, row.prompt, row.language)
        return replace(row, grounding=Grounding.YES if is_supported else Grounding.NO)

    def _wrong_size(self, draft: str, row: Row) -> Refusal | None:
        if len(row.completion) < MIN_SHARE * len(draft):
            return Refusal.TOO_SHORT
        if len(row.completion) > MAX_GROWTH * len(draft) + SPARE_CHARACTERS:
            return Refusal.TOO_LONG
        return find_wrong_size(row, self.specialist, self.counter)


@dataclass
class RevisionMaker(SynthesisWork):
    """Makes the revisions of a synthesis; `drafts` are those that can still be read, by the number of their request. Thread-safe.

    The judge model gives the verdict if there is one, and otherwise the teacher, in a separate request.
    """

    synthesis: Synthesis
    asker: Asker
    checks: RevisionChecks
    drafts: Mapping[int, CommentedDraft]
    room: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    exhausted = "Every comment was answered. The refusals say why some revisions are not learned from."

    @property
    def numbers(self) -> Sequence[int]:
        return sorted(self.drafts)

    def rows(self, number: int) -> int:
        return 1

    def make(self, number: int) -> None:
        """If the budget cannot pay for the verdict, nothing is stored, and another synthesis answers the comment."""
        commented = self.drafts[number]
        answer = self._ask(
            number, TEACH, ModelRole.TEACHER, self._revise(commented), self.synthesis.spec.max_answer_tokens
        )
        sample = self._sample(number, commented, answer)
        self.asker.syntheses.keep_samples(self.asker.job, number, [sample])
        if sample.state is not SampleState.REFUSED:
            with self._lock:
                self.room -= 1

    def _revise(self, commented: CommentedDraft) -> Messages:
        return revision_messages(self.checks.specialist.guidelines, self.synthesis.spec.instruction, commented)

    def _sample(self, number: int, commented: CommentedDraft, answer: StoredAnswer) -> SynthesisSample:
        revision = "" if answer.finish_reason == "length" else parse_text(answer.text)
        row = make_row(self.synthesis, self.checks.specialist, commented, answer, revision)
        refusal = self._refuse(number, commented, answer, row)
        if refusal is not None:
            return SynthesisSample(f"refused_{number}_0", row, SampleState.REFUSED, number, refusal)
        row = self.checks.ground(row)
        state = SampleState.PENDING if self.synthesis.spec.needs_review else SampleState.ACCEPTED
        return SynthesisSample(row.row_id, row, state, number)

    def _refuse(self, number: int, commented: CommentedDraft, answer: StoredAnswer, row: Row) -> Refusal | None:
        if answer.is_refused:
            return Refusal.TEACHER_REFUSED
        if not row.messages:
            return Refusal.OFF_FORMAT
        return self.checks.refuse(commented, row) or self._judge(number, commented, row.completion)

    def _judge(self, number: int, commented: CommentedDraft, revision: str) -> Refusal | None:
        role = ModelRole.JUDGE if self.synthesis.judge else ModelRole.TEACHER
        messages = verdict_messages(commented, revision)
        verdict = parse_verdict(self._ask(number, VERDICT, role, messages, VERDICT_TOKENS).text)
        if verdict is None:
            return Refusal.NOT_JUDGED
        follows, keeps_facts = verdict
        if not follows:
            return Refusal.COMMENT_NOT_MET
        return None if keeps_facts else Refusal.CHANGED_FACTS

    def _ask(self, number: int, step: str, role: ModelRole, messages: Messages, max_tokens: int) -> StoredAnswer:
        is_teaching = step == TEACH
        return self.asker.ask(
            TeacherQuestion(
                number,
                step,
                role,
                messages,
                max_tokens,
                self.synthesis.spec.temperature if is_teaching else 0.0,
                text_schema() if is_teaching else verdict_schema(),
                self.drafts[number].origins,
            )
        )


def make_row(
    synthesis: Synthesis, specialist: Specialist, commented: CommentedDraft, answer: StoredAnswer, revision: str
) -> Row:
    """The draft's chat with its revision as the answer. Without a revision, the row has no messages.

    A system message of the caller's occurs in the place of the specialist's. The row's seed is the prompt, so that the row is on the
    prompt's side of the split.
    """
    languages, chat = specialist.filters.languages, commented.draft.messages
    system_prompt = chat[0][1] if chat[0][0] == "system" else ""
    lineage = (
        ("synthesis", synthesis.synthesis_id),
        ("prompt_version", synthesis.prompt_version),
        ("seeds", commented.draft.prompt_digest),
        ("judge", synthesis.judge or synthesis.teacher),
        (JUDGEMENT_ID, commented.judgement_id),
        (DRAFT_ID, commented.draft.draft_id),
    )
    return Row(
        task=CRITIQUE,
        document_ids=commented.draft.drawn_from,
        messages=(*chat[bool(system_prompt) :], ("assistant", revision)) if revision else (),
        made_by=f"teacher:{answer.model}",
        system_prompt=system_prompt,
        language=languages[0] if len(languages) == 1 else "",
        grounding=Grounding.NO,
        lineage=lineage,
    )
