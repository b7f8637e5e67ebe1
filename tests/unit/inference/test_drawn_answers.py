"""Answers to prompts of datasets, which experts judge."""

from dataclasses import replace

import pytest

from services.inference.domain import Caller, ChatMessage, Draft, DraftRecord, RowPrompt, Transcript
from services.inference.generation import Cancellation
from services.inference.handlers import MAX_DOCUMENTS, answer_drawn_prompt, regenerate_draft
from services.inference.wire import from_draft, to_record
from tailor.errors import FailedPrecondition, InvalidArgument, NotFound, Reason, TailorError
from tailor.values import Labels
from tests.unit.inference.fakes import World, apply_serving, make_world, served

SYNTHETIC = Caller("service", "synthetic")
PROMPT = RowPrompt("reports", (ChatMessage("user", "Write the Position section."),), ("doc_1", "doc_2"))


def world_of(name: str = "a") -> World:
    """A world whose specialist stores its drafts; the registry knows every draft at once."""
    world = make_world()
    apply_serving(world, served("reports", 1, name, "You write memos."))
    world.inference.definitions.define("reports", Labels(), keep_drafts=True, private_prompts=True)
    keep = world.inference.drafts.keep_text

    def catalogue(draft: Draft, transcript: Transcript) -> None:
        keep(draft, transcript)
        text = world.archive.texts.put(transcript)
        world.archive.records[draft.draft_id] = DraftRecord(replace(draft, text=text), "tiny")

    drafts = replace(world.inference.drafts, keep_text=catalogue)
    return replace(world, inference=replace(world.inference, drafts=drafts))


def test_a_drawn_prompt_leaves_a_draft_that_names_its_documents_and_passes_no_barrier() -> None:
    world = world_of()
    draft_id = answer_drawn_prompt(world.inference, SYNTHETIC, PROMPT, Cancellation())
    ((draft, transcript),) = world.archive.offered
    assert (draft.draft_id, draft.key_id, draft.prompt.drawn_from) == (draft_id, "", PROMPT.document_ids)
    assert (draft.served.adapter_digest, draft.served.is_canary) == ("a", False)
    assert transcript == Transcript(PROMPT.messages, transcript.answer, anonymized=True, is_drawn=True)
    assert world.engine.streams[-1].sampling.temperature > 0
    assert to_record(from_draft(draft, "tiny")).draft.prompt == draft.prompt


def test_the_second_draft_of_a_drawn_prompt_names_the_same_documents_and_has_the_same_digest() -> None:
    world = world_of()
    draft_id = answer_drawn_prompt(world.inference, SYNTHETIC, PROMPT, Cancellation())
    for _ in regenerate_draft(world.inference, Caller("service", "console"), draft_id, Cancellation()):
        pass
    (first, _), (second, transcript) = world.archive.offered
    assert first.prompt == second.prompt
    assert first.draft_id != second.draft_id and transcript.is_drawn and transcript.anonymized


def refuse(world: World, prompt: RowPrompt, error: type[TailorError]) -> Reason:
    with pytest.raises(error) as refused:
        answer_drawn_prompt(world.inference, SYNTHETIC, prompt, Cancellation())
    assert not world.archive.offered and not world.engine.streams
    return Reason(refused.value.reason)


def test_refuses_a_prompt_that_it_cannot_answer_or_whose_draft_would_not_be_stored() -> None:
    world = world_of()
    without_answer = replace(PROMPT, messages=(*PROMPT.messages, ChatMessage("assistant", "Done.")))
    assert refuse(world, without_answer, InvalidArgument) == Reason.INVALID_REQUEST
    for ids in ((), tuple(map(str, range(MAX_DOCUMENTS + 1)))):
        assert refuse(world, replace(PROMPT, document_ids=ids), InvalidArgument) == Reason.INVALID_REQUEST
    assert refuse(world, replace(PROMPT, specialist="others"), NotFound) == Reason.UNKNOWN_SPECIALIST
    assert refuse(world_of(""), PROMPT, FailedPrecondition) == Reason.NO_ADAPTER
    world.inference.definitions.define("reports", Labels())
    assert refuse(world, PROMPT, FailedPrecondition) == Reason.PROMPTS_NOT_DRAWN
