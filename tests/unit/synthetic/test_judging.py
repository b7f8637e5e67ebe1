"""Pairs from rankings and deliverables."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from services.synthetic.domain import Assignment, Document, Filters, Judgement, Kind, Labels, Specialist, Spoken
from services.synthetic.judging import Evidence, PairLimits, Pairs, make_pairs
from services.synthetic.selection import is_held_out
from tailor.storage.ref import Ref

SPECIALIST = Specialist("reports", 1, "base", "lora", system_prompt="House style.")
LIMITS = PairLimits(max_tokens=100)
TRAIN = next(f"prompt{n}" for n in range(99) if not is_held_out(f"prompt{n}", 12))
HELD_OUT = next(f"prompt{n}" for n in range(99) if is_held_out(f"prompt{n}", 12))
KEPT_DOCUMENT = next(f"doc_{n}" for n in range(99) if not is_held_out(f"doc_{n}", 12))


def spoken(draft_id: str, answer: str, prompt: str = TRAIN, first: str = "user") -> Spoken:
    messages = (("system", "Mine."), ("user", prompt)) if first == "system" else (("user", prompt),)
    return Spoken(draft_id, prompt, messages, answer)


def ranking(number: int, *draft_ids: str) -> Judgement:
    return Judgement(f"jdg_{number}", "reports", draft_ids, {}, "")


def deliverable(document_id: str, draft_id: str) -> Document:
    return Document(document_id, 1, "d", Kind.DELIVERABLE, Labels(), Ref("s3://corpus/x", "x", 1), draft_id)


def make(
    judgements: Sequence[Judgement],
    drafts: Sequence[Spoken],
    finished: Sequence[tuple[Document, str]] = (),
    sides: dict[str, bool] | None = None,
    specialist: Specialist = SPECIALIST,
) -> Pairs:
    assignments = {key: Assignment(key, key, side) for key, side in (sides or {}).items()}
    evidence = Evidence(judgements, finished, {one.draft_id: one for one in drafts}, assignments)
    return make_pairs(specialist, evidence, LIMITS)


A, B, C = spoken("a", "Best."), spoken("b", "Middling."), spoken("c", "Worst.")


def test_a_ranking_makes_a_pair_of_every_two_with_the_specialists_own_prompt_before_it() -> None:
    made = make([ranking(1, "a", "b", "c")], [A, B, C])
    assert {(row.chosen, row.rejected) for row in made.train} == {
        ("Best.", "Middling."),
        ("Best.", "Worst."),
        ("Middling.", "Worst."),
    }
    (messages,) = {row.messages for row in made.train}
    assert messages == (("system", "House style."), ("user", TRAIN))
    assert {row.judgement_ids for row in made.train} == {("jdg_1",)} and not any(row.document_ids for row in made.train)
    assert (made.counts.judgements, made.counts.pairs) == (1, 3)


def test_a_chat_with_a_system_prompt_of_its_own_keeps_it() -> None:
    (row,) = make(
        [ranking(1, "a", "b")], [spoken("a", "One.", first="system"), spoken("b", "Two.", first="system")]
    ).train
    assert row.messages[0] == ("system", "Mine.")


def test_the_majority_orders_a_pair_and_a_tie_drops_it() -> None:
    votes = [ranking(1, "a", "b"), ranking(2, "b", "a"), ranking(3, "a", "b")]
    (row,) = make(votes, [A, B]).train
    assert (row.chosen, row.rejected, row.judgement_ids) == ("Best.", "Middling.", ("jdg_1", "jdg_2", "jdg_3"))
    tied = make(votes[:2], [A, B])
    assert (tied.train, tied.counts.tied) == ((), 1)


def test_drafts_with_the_same_text_are_the_same_answer() -> None:
    again = spoken("a2", "Best.")
    (row,) = make([ranking(1, "a", "b"), ranking(2, "a2", "b"), ranking(3, "a", "a2")], [A, B, again]).train
    assert row.judgement_ids == ("jdg_1", "jdg_2")
    assert make([ranking(3, "a", "a2")], [A, again]).counts.identical == 1


def test_only_drafts_of_one_prompt_with_kept_texts_are_compared() -> None:
    other = spoken("o", "Else.", HELD_OUT)
    made = make([ranking(1, "a", "o"), ranking(2, "a", "gone"), ranking(3, "a")], [A, other])
    assert not made.train and not made.held_out
    assert (made.counts.judgements, made.counts.unmatched) == (2, 2)


def test_a_prompt_stays_on_its_side_and_is_never_on_both() -> None:
    held = [spoken("h1", "One.", HELD_OUT), spoken("h2", "Two.", HELD_OUT)]
    made = make([ranking(1, "a", "b"), ranking(2, "h1", "h2")], [A, B, *held])
    assert {row.prompt_digest for row in made.train} == {TRAIN}
    assert {row.prompt_digest for row in made.held_out} == {HELD_OUT}


def test_a_deliverable_is_better_than_its_draft() -> None:
    finished = [(deliverable(KEPT_DOCUMENT, "a"), "Finished."), (deliverable("doc_x", "gone"), "Else.")]
    made = make([], [A], finished, {KEPT_DOCUMENT: False})
    (row,) = made.train
    assert (row.origin, row.chosen, row.rejected, row.document_ids, row.judgement_ids) == (
        "deliverable",
        "Finished.",
        "Best.",
        (KEPT_DOCUMENT,),
        (),
    )
    assert make([], [A], [(deliverable(KEPT_DOCUMENT, "a"), "Best. ")]).counts.identical == 1


@pytest.mark.parametrize("side", [True, False])
def test_a_deliverable_on_the_other_side_than_its_prompt_is_left_out(side: bool) -> None:
    draft = spoken("a", "Best.", TRAIN if side else HELD_OUT)
    made = make([], [draft], [(deliverable(KEPT_DOCUMENT, "a"), "Finished.")], {KEPT_DOCUMENT: side})
    assert (made.train, made.held_out, made.counts.across_split) == ((), (), 1)


def test_long_pairs_are_left_out_and_one_judgement_makes_no_more_than_its_cap() -> None:
    long = spoken("l", "x" * 500)
    made = make([ranking(1, "l", "a")], [long, A])
    assert (made.train, made.counts.too_long) == ((), 1)
    capped = replace(SPECIALIST, filters=Filters(max_pairs_per_judgement=1))
    first = make([ranking(1, "a", "b", "c")], [A, B, C], specialist=capped)
    assert len(first.train) == 1 and first == make([ranking(1, "a", "b", "c")], [C, B, A], specialist=capped)


def test_a_row_keeps_its_id_when_more_judgements_say_the_same() -> None:
    (one,) = make([ranking(1, "a", "b")], [A, B]).train
    (two,) = make([ranking(1, "a", "b"), ranking(2, "a", "b")], [A, B]).train
    assert one.row_id == two.row_id and one.judgement_ids != two.judgement_ids
