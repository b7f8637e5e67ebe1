"""What experts' comments ask for again and again."""

import random
import time
from datetime import UTC, datetime, timedelta
from string import ascii_lowercase

import pytest

from services.registry.domain import Judgement
from services.registry.rules.comment_groups import MAX_COMMENTS, group_comments
from services.registry.rules.judgement_checks import MAX_COMMENT

START = datetime(2026, 5, 1, tzinfo=UTC)
KIND = (
    "Please close more kindly.",
    "The letter should close more kindly!",
    "It must close more kindly, as a colleague would.",
)
OWNER = ("Name the owner and a date.", "The owner and the date are missing.")


def judgement(number: int, comment: str, expert: str = "exp_1") -> Judgement:
    return Judgement(
        judgement_id=f"jdg_{number:05}",
        specialist="memos",
        ranking=("drf_1", "drf_2"),
        marks=(),
        comment=comment,
        create_time=START + timedelta(seconds=number),
        expert_id=expert,
    )


def judgements() -> list[Judgement]:
    experts = ("exp_1", "exp_2", "exp_1", "exp_3", "exp_3")
    return [judgement(number, text, experts[number]) for number, text in enumerate((*KIND, *OWNER))]


def test_groups_what_two_comments_ask_for_with_counts_experts_and_examples() -> None:
    kind, owner = group_comments([*judgements(), judgement(9, "Wonderful weather in Lisbon.")])
    assert kind.text in KIND and (kind.comments, kind.experts) == (3, 2)
    assert {example.text for example in kind.examples} == set(KIND)
    assert owner.text in OWNER and (owner.comments, owner.experts) == (2, 1)
    assert {example.judgement_id for example in owner.examples} == {"jdg_00003", "jdg_00004"}


def test_the_order_of_comments_does_not_matter() -> None:
    shuffled = judgements()
    expected = group_comments(shuffled)
    for seed in range(5):
        random.Random(seed).shuffle(shuffled)
        assert group_comments(shuffled) == expected


def test_each_sentence_of_a_comment_counts_for_its_own_group_and_a_comment_once() -> None:
    both = judgement(7, "Close more kindly. Close more kindly! Name the owner and a date.", "exp_4")
    kind, owner = group_comments([*judgements(), both])
    assert (kind.comments, kind.experts, owner.comments, owner.experts) == (4, 3, 3, 2)


def test_comments_without_an_expert_count_as_one() -> None:
    (group,) = group_comments([judgement(number, "Use shorter sentences.", "") for number in range(3)])
    assert (group.comments, group.experts) == (3, 1)


@pytest.mark.parametrize("comments", [(), ("",), ("Good.", "Good."), ("Use shorter sentences.",)])
def test_single_words_and_single_comments_propose_nothing(comments: tuple[str, ...]) -> None:
    assert group_comments([judgement(number, text) for number, text in enumerate(comments)]) == []


def test_reads_the_newest_comments_in_seconds() -> None:
    words = [f"word{letter}{other}" for letter in "abcdefghij" for other in "klmnopqrst"]
    draw = random.Random(1)
    many = [judgement(number, " ".join(draw.choices(words, k=8))) for number in range(MAX_COMMENTS)]
    old = [judgement(-number, "Use shorter sentences.") for number in range(1, 4)]
    start = time.process_time()
    groups = group_comments([*old, *many])
    assert time.process_time() - start < 20
    assert all("shorter" not in group.text for group in groups)


def test_remarks_that_share_only_common_words_do_not_keep_the_registry_busy() -> None:
    draw = random.Random(2)
    # 100 comments of one expert: each sentence shares two words with all the others, so each would form a group.
    sentences = [
        "Please write " + " ".join("".join(draw.choices(ascii_lowercase, k=6)) for _ in range(4)) for _ in range(9_000)
    ]
    many = [judgement(at, "\n".join(sentences[at * 90 : (at + 1) * 90])) for at in range(100)]
    assert all(len(item.comment) <= MAX_COMMENT for item in many)
    start = time.process_time()
    group_comments([*judgements(), *many])
    assert time.process_time() - start < 20
