"""Pairs from rankings and deliverables."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from services.synthetic.domain import (
    Conversation,
    Document,
    Judgement,
    Kind,
    Revision,
    Specialist,
)
from services.synthetic.rows.preference_rows import Evidence, PairLimits, Pairs, make_pairs
from tailor.rounds import is_held_out
from tailor.storage.ref import Ref
from tailor.values import Filters, Labels
from tests.unit.synthetic.fakes import WordCounter

SPECIALIST = Specialist("reports", 1, "base", "lora", system_prompt="House style.")
LIMITS = PairLimits(max_tokens=100)
TRAIN = next(f"prompt{n}" for n in range(99) if not is_held_out(f"prompt{n}", 12))
HELD_OUT = next(f"prompt{n}" for n in range(99) if is_held_out(f"prompt{n}", 12))
KEPT_DOCUMENT = next(f"doc_{n}" for n in range(99) if not is_held_out(f"doc_{n}", 12))


def conversation(draft_id: str, answer: str, prompt: str = TRAIN, first: str = "user") -> Conversation:
    messages = (("system", "Mine."), ("user", prompt)) if first == "system" else (("user", prompt),)
    return Conversation(draft_id, prompt, messages, answer)


def ranking(number: int, *draft_ids: str) -> Judgement:
    return Judgement(f"jdg_{number}", "reports", draft_ids, {}, "")


def deliverable(document_id: str, draft_id: str) -> Document:
    return Document(document_id, 1, "d", Kind.DELIVERABLE, Labels(), Ref("s3://corpus/x", "x", 1), draft_id)


def make(
    judgements: Sequence[Judgement],
    drafts: Sequence[Conversation],
    finished: Sequence[tuple[Document, str]] = (),
    sides: dict[str, bool] | None = None,
    specialist: Specialist = SPECIALIST,
    *,
    revisions: Sequence[Revision] = (),
) -> Pairs:
    evidence = Evidence(judgements, finished, {draft.draft_id: draft for draft in drafts}, sides or {}, revisions)
    return make_pairs(specialist, evidence, LIMITS, WordCounter())


A, B, C = conversation("a", "Best."), conversation("b", "Middling."), conversation("c", "Worst.")


def test_a_ranking_gives_a_pair_of_every_two_drafts_with_the_specialists_system_prompt() -> None:
    pairs = make([ranking(1, "a", "b", "c")], [A, B, C])
    assert {(row.chosen, row.rejected) for row in pairs.train} == {
        ("Best.", "Middling."),
        ("Best.", "Worst."),
        ("Middling.", "Worst."),
    }
    (messages,) = {row.messages for row in pairs.train}
    assert messages == (("system", "House style."), ("user", TRAIN))
    assert {row.judgement_ids for row in pairs.train} == {("jdg_1",)} and not any(
        row.document_ids for row in pairs.train
    )
    assert (pairs.counts.judgements, pairs.counts.pairs) == (1, 3)


def test_equally_good_drafts_of_a_ranking_are_no_pair_and_are_counted_unless_somebody_decides() -> None:
    tied = replace(ranking(1, "a", "b", "c"), places=(1, 2, 2))
    pairs = make([tied], [A, B, C])
    assert {(row.chosen, row.rejected) for row in pairs.train} == {("Best.", "Middling."), ("Best.", "Worst.")}
    assert (pairs.counts.pairs, pairs.counts.tied) == (2, 1)
    pairs = make([tied, ranking(2, "b", "c")], [A, B, C])
    (decided,) = (row for row in pairs.train if row.chosen == "Middling.")
    assert decided.judgement_ids == ("jdg_2",) and pairs.counts.tied == 0


def test_a_chat_keeps_its_own_system_prompt() -> None:
    (row,) = make(
        [ranking(1, "a", "b")], [conversation("a", "One.", first="system"), conversation("b", "Two.", first="system")]
    ).train
    assert row.messages[0] == ("system", "Mine.")


def test_the_majority_orders_a_pair_and_a_tie_gives_no_row() -> None:
    votes = [ranking(1, "a", "b"), ranking(2, "b", "a"), ranking(3, "a", "b")]
    (row,) = make(votes, [A, B]).train
    assert (row.chosen, row.rejected, row.judgement_ids) == ("Best.", "Middling.", ("jdg_1", "jdg_2", "jdg_3"))
    tied = make(votes[:2], [A, B])
    assert (tied.train, tied.counts.tied) == ((), 1)


def test_drafts_with_equal_texts_are_one_answer() -> None:
    again = conversation("a2", "Best.")
    (row,) = make([ranking(1, "a", "b"), ranking(2, "a2", "b"), ranking(3, "a", "a2")], [A, B, again]).train
    assert row.judgement_ids == ("jdg_1", "jdg_2")
    assert make([ranking(3, "a", "a2")], [A, again]).counts.identical == 1


def test_compares_only_drafts_of_one_prompt_with_stored_texts() -> None:
    other = conversation("o", "Else.", HELD_OUT)
    pairs = make([ranking(1, "a", "o"), ranking(2, "a", "gone"), ranking(3, "a")], [A, other])
    assert not pairs.train and not pairs.held_out
    assert (pairs.counts.judgements, pairs.counts.unmatched) == (2, 2)


def test_a_prompt_is_on_one_side_of_the_split() -> None:
    held = [conversation("h1", "One.", HELD_OUT), conversation("h2", "Two.", HELD_OUT)]
    pairs = make([ranking(1, "a", "b"), ranking(2, "h1", "h2")], [A, B, *held])
    assert {row.prompt_digest for row in pairs.train} == {TRAIN}
    assert {row.prompt_digest for row in pairs.held_out} == {HELD_OUT}


def test_a_deliverable_is_better_than_its_draft() -> None:
    finished = [(deliverable(KEPT_DOCUMENT, "a"), "Finished."), (deliverable("doc_x", "gone"), "Else.")]
    pairs = make([], [A], finished, {KEPT_DOCUMENT: False})
    (row,) = pairs.train
    assert (row.task, row.chosen, row.rejected, row.document_ids, row.judgement_ids) == (
        "deliverable",
        "Finished.",
        "Best.",
        (KEPT_DOCUMENT,),
        (),
    )
    assert make([], [A], [(deliverable(KEPT_DOCUMENT, "a"), "Best. ")]).counts.identical == 1


@pytest.mark.parametrize("side", [True, False])
def test_drops_a_deliverable_on_another_side_than_its_prompt(side: bool) -> None:
    draft = conversation("a", "Best.", TRAIN if side else HELD_OUT)
    pairs = make([], [draft], [(deliverable(KEPT_DOCUMENT, "a"), "Finished.")], {KEPT_DOCUMENT: side})
    assert (pairs.train, pairs.held_out, pairs.counts.across_split) == ((), (), 1)


def test_drops_long_pairs_and_limits_pairs_per_judgement() -> None:
    long = conversation("l", "x " * 200)
    pairs = make([ranking(1, "l", "a")], [long, A])
    assert (pairs.train, pairs.counts.too_long) == ((), 1)
    capped = replace(SPECIALIST, filters=Filters(max_pairs_per_judgement=1))
    first = make([ranking(1, "a", "b", "c")], [A, B, C], specialist=capped)
    assert len(first.train) == 1 and first == make([ranking(1, "a", "b", "c")], [C, B, A], specialist=capped)


def test_pairs_that_the_bases_template_cannot_hold_are_skipped_and_counted() -> None:
    class Picky(WordCounter):
        """The counter of a base whose template cannot hold one answer."""

        def can_encode(self, messages: Sequence[tuple[str, str]]) -> bool:
            return messages[-1] != ("assistant", "Worst.")

    evidence = Evidence([ranking(1, "a", "b", "c")], (), {draft.draft_id: draft for draft in (A, B, C)}, {}, ())
    pairs = make_pairs(SPECIALIST, evidence, LIMITS, Picky())
    assert [(row.chosen, row.rejected) for row in pairs.train] == [("Best.", "Middling.")]
    assert (pairs.counts.pairs, pairs.counts.unfit) == (3, 2)


def test_answers_of_a_pair_have_no_white_space_around_them() -> None:
    (row,) = make([ranking(1, "a", "b")], [conversation("a", "  Best.\n"), conversation("b", "\n\nWorst.")]).train
    assert (row.chosen, row.rejected) == ("Best.", "Worst.")


def test_more_judgements_do_not_change_a_rows_id() -> None:
    (first,) = make([ranking(1, "a", "b")], [A, B]).train
    (second,) = make([ranking(1, "a", "b"), ranking(2, "a", "b")], [A, B]).train
    assert first.row_id == second.row_id and first.judgement_ids != second.judgement_ids


def test_a_revision_is_better_than_its_draft_and_is_never_held_out() -> None:
    held_out = conversation("h", "Held out.", HELD_OUT)
    revisions = [Revision(f"jdg_{key}", key, f"Revised {key}.", "teacher:wise") for key in ("a", "h", "gone")]
    pairs = make([], [A, held_out], revisions=revisions)
    (row,) = pairs.train
    assert (row.task, row.chosen, row.rejected) == ("critique", "Revised a.", "Best.")
    assert (row.judgement_ids, row.made_by, row.messages[0]) == (("jdg_a",), "teacher:wise", ("system", "House style."))
    assert pairs.held_out == () and (pairs.counts.critiques, pairs.counts.across_split) == (2, 1)


def test_an_edited_draft_is_paired_with_its_own_draft_only_and_can_be_erased_by_its_text_id() -> None:
    edited = replace(conversation("drf_e", "Best and warm."), edit_of="b")
    pairs = make([ranking(1, "drf_e", "b", "c")], [edited, B, C])
    rows = {(row.chosen, row.rejected): row for row in pairs.train}
    assert set(rows) == {("Best and warm.", "Middling."), ("Middling.", "Worst.")}
    assert rows["Best and warm.", "Middling."].document_ids == ("txt_e",)
    assert rows["Middling.", "Worst."].document_ids == ()


def test_a_pair_of_an_edited_draft_is_on_the_side_of_its_prompt() -> None:
    for prompt in (TRAIN, HELD_OUT):
        # Text ids on either side of a split of their own.
        for number in range(12):
            draft = conversation("b", "Middling.", prompt)
            edited = replace(conversation(f"drf_{number}", "Warm.", prompt), edit_of="b")
            pairs = make([ranking(1, edited.draft_id, "b")], [edited, draft])
            assert (len(pairs.train), len(pairs.held_out)) == ((1, 0) if prompt == TRAIN else (0, 1))


def test_pairs_of_a_drawn_prompt_name_its_documents_and_are_split_by_the_prompt() -> None:
    for prompt in (TRAIN, HELD_OUT):
        a, b = (
            replace(conversation(key, text, prompt), drawn_from=("doc_9",))
            for key, text in (("a", "Best."), ("b", "Worst."))
        )
        revision = Revision("jdg_2", "b", "Better.", "teacher:m")
        pairs = make([ranking(1, "a", "b")], [a, b], sides={"doc_9": False}, revisions=[revision])
        rows = pairs.held_out if prompt == HELD_OUT else pairs.train
        assert {(row.task, row.document_ids) for row in rows} >= {("ranking", ("doc_9",))}
        assert len(rows) == 1 + (prompt == TRAIN) and {row.document_ids for row in rows} == {("doc_9",)}


def test_a_deliverable_of_a_drawn_prompt_is_on_the_side_of_its_own_document_only() -> None:
    draft = replace(A, drawn_from=("doc_held",))
    finished = [(deliverable(KEPT_DOCUMENT, "a"), "Final.")]
    (row,) = make([], [draft], finished, {"doc_held": True}).train
    assert row.document_ids == tuple(sorted((KEPT_DOCUMENT, "doc_held"))) and row.drawn_from == ("doc_held",)
