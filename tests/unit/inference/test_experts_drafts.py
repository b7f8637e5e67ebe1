"""Drafts that experts edit, and answers to prompts of datasets, which experts judge."""

from dataclasses import replace

import pytest

from services.inference.adapters import drafts
from services.inference.domain import Caller, ChatMessage, Draft, DraftRecord, PromptRecord, RowPrompt, Transcript
from services.inference.generation import Cancellation
from services.inference.handlers import MAX_DOCUMENTS, answer_drawn_prompt, edit_draft, regenerate_draft, text_id_of
from services.inference.wire import from_draft, to_record
from tailor.errors import FailedPrecondition, InvalidArgument, NotFound, Reason, TailorError, Unavailable
from tailor.values import Labels
from tests.unit.inference.fakes import World, apply_serving, make_world, served

EXPERT = Caller("key", "expert", frozenset({"reports"}), "key_2", "ROLE_EXPERT")
STRANGER = Caller("key", "expert", frozenset({"memos"}), "key_3", "ROLE_EXPERT")
LABELS = Labels("wiki")
PROMPT = ChatMessage("user", "Write to Ines about the cash.")
ANSWER = "Dear Ines, the cash holds."


def make_edit_world() -> World:
    """A draft whose stored text names Ines, which is a surrogate. The barrier would replace Ines by Mara, and Ngozi by Ines."""
    world = make_world()
    world.inference.definitions.define("reports", LABELS, keep_drafts=True)
    draft = Draft("drf_1", served("reports", 1, "a"), "key_1", PromptRecord("prompt"), "answer", 1, 2, "stop", 0.1, 0.2)
    text = world.archive.texts.put(Transcript((PROMPT,), ANSWER))
    draft = replace(draft, compute_seconds=0.2, compute_device="2 CPU cores", text=text)
    world.archive.records["drf_1"] = DraftRecord(draft, "tiny")
    world.anonymizer.pairs = {"Mara": "Ines", "Odile": "Ngozi"}

    def publish(draft: Draft) -> None:
        world.published.draft(draft)
        world.archive.records[draft.draft_id] = to_record(from_draft(draft, "tiny"))

    inference = replace(world.inference, drafts=replace(world.inference.drafts, publish=publish))
    return replace(world, inference=inference)


def test_an_edit_is_a_draft_of_the_same_prompt_whose_added_values_are_replaced() -> None:
    world = make_edit_world()
    draft_id = edit_draft(world.inference, EXPERT, "drf_1", "Dear Ines, Ngozi says that the cash holds.")
    (draft,) = world.published.drafts
    original = world.archive.records["drf_1"].draft
    assert (draft.draft_id, draft.edit_of, draft.finish_reason, draft.key_id) == (draft_id, "drf_1", "edited", "")
    assert (draft.prompt, draft.served) == (original.prompt, original.served)
    assert draft.answer_digest not in ("", original.answer_digest) and draft.moment >= original.moment
    assert (draft.compute_seconds, draft.compute_device) == (0, "")
    assert draft.text is not None
    stored = world.archive.texts.get(draft.text)
    assert stored == Transcript((PROMPT,), "Dear Ines, Odile says that the cash holds.")
    # Only the stored texts of the named draft count as passed.
    assert world.anonymizer.edits == [(text_id_of(draft_id), (PROMPT.content, ANSWER), LABELS)]


def test_the_same_edit_is_stored_once_and_another_one_apart() -> None:
    world = make_edit_world()
    first, again, other = (
        edit_draft(world.inference, EXPERT, "drf_1", text) for text in ("Hello Ines.", "Hello Ines.", "Bye Ines.")
    )
    assert first == again != other and len(world.published.drafts) == len(world.anonymizer.edits) == 2


@pytest.mark.parametrize("text", ["", " \n", "x" * 100_001, "\ud800", ANSWER, f" {ANSWER}\n"])
def test_refuses_an_edit_that_teaches_nothing(text: str) -> None:
    world = make_edit_world()
    with pytest.raises(InvalidArgument) as refused:
        edit_draft(world.inference, EXPERT, "drf_1", text)
    assert (refused.value.reason, [*refused.value.field_violations]) == (Reason.INVALID_EDIT, ["text"])
    assert not world.published.drafts


def test_refuses_a_draft_that_the_expert_may_not_see_or_whose_text_is_gone() -> None:
    world = make_edit_world()
    for caller, draft_id in ((STRANGER, "drf_1"), (EXPERT, "drf_2")):
        with pytest.raises(NotFound):
            edit_draft(world.inference, caller, draft_id, "Hello.")
    world.archive.objects.clear()
    with pytest.raises(FailedPrecondition) as gone:
        edit_draft(world.inference, EXPERT, "drf_1", "Hello.")
    world.archive.texts.put(Transcript((PROMPT,), ANSWER))
    world.inference.definitions.define("reports")
    with pytest.raises(FailedPrecondition) as off:
        edit_draft(world.inference, EXPERT, "drf_1", "Hello.")
    assert gone.value.reason == off.value.reason == "DRAFT_WITHOUT_TEXT" and not world.published.drafts


def test_nothing_is_stored_while_the_barrier_does_not_answer() -> None:
    world = make_edit_world()
    world.anonymizer.failures = [Unavailable(Reason.UNAVAILABLE, "anonymization does not answer.")]
    with pytest.raises(Unavailable):
        edit_draft(world.inference, EXPERT, "drf_1", "Hello Ngozi.")
    assert not world.published.drafts and len(world.archive.objects) == 1


def test_a_registry_that_does_not_learn_of_the_edit_holds_the_caller_for_a_limited_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = make_edit_world()
    monkeypatch.setattr(drafts, "CATALOGUE_SECONDS", 0.2)
    inference = replace(world.inference, drafts=replace(world.inference.drafts, publish=world.published.draft))
    assert edit_draft(inference, EXPERT, "drf_1", "Hello Ines.") == world.published.drafts[0].draft_id


SYNTHETIC = Caller("service", "synthetic")
DRAWN = RowPrompt("reports", (ChatMessage("user", "Write the Position section."),), ("doc_1", "doc_2"))


def make_drawing_world(name: str = "a") -> World:
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
    world = make_drawing_world()
    draft_id = answer_drawn_prompt(world.inference, SYNTHETIC, DRAWN, Cancellation())
    ((draft, transcript),) = world.archive.offered
    assert (draft.draft_id, draft.key_id, draft.prompt.drawn_from) == (draft_id, "", DRAWN.document_ids)
    assert (draft.served.adapter_digest, draft.served.is_canary) == ("a", False)
    assert transcript == Transcript(DRAWN.messages, transcript.answer, anonymized=True, is_drawn=True)
    assert world.engine.streams[-1].sampling.temperature > 0
    assert to_record(from_draft(draft, "tiny")).draft.prompt == draft.prompt


def test_the_second_draft_of_a_drawn_prompt_names_the_same_documents_and_has_the_same_digest() -> None:
    world = make_drawing_world()
    draft_id = answer_drawn_prompt(world.inference, SYNTHETIC, DRAWN, Cancellation())
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
    world = make_drawing_world()
    without_answer = replace(DRAWN, messages=(*DRAWN.messages, ChatMessage("assistant", "Done.")))
    assert refuse(world, without_answer, InvalidArgument) == Reason.INVALID_REQUEST
    for ids in ((), tuple(map(str, range(MAX_DOCUMENTS + 1)))):
        assert refuse(world, replace(DRAWN, document_ids=ids), InvalidArgument) == Reason.INVALID_REQUEST
    assert refuse(world, replace(DRAWN, specialist="others"), NotFound) == Reason.UNKNOWN_SPECIALIST
    assert refuse(make_drawing_world(""), DRAWN, FailedPrecondition) == Reason.NO_ADAPTER
    world.inference.definitions.define("reports", Labels())
    assert refuse(world, DRAWN, FailedPrecondition) == Reason.PROMPTS_NOT_DRAWN
