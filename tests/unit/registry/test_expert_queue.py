"""The queue of an expert: which drafts are compared, by how many experts, in which order and on which sides."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.registry.domain import JudgingPolicy
from services.registry.rules.expert_queue import (
    MAX_INCOMPLETE,
    MORE_EXPERTS,
    SPARE_ANSWERS,
    ExpertDecision,
    StoredDraft,
    count_drawn,
    count_experts,
    find_judging_violations,
    list_votes,
    make_queue,
    needs_another_expert,
)
from tailor.values import JudgingCriterion

NOW = datetime(2026, 11, 1, tzinfo=UTC)
POLICY = JudgingPolicy()
TONE = JudgingCriterion("tone", "Is the tone right?", "blames", "plain and kind")
ENDS = ("low", "high")
ALONE = next(f"prompt {number}" for number in range(100) if count_experts(f"prompt {number}", POLICY) == 1)
SHARED = next(f"prompt {number}" for number in range(100) if count_experts(f"prompt {number}", POLICY) > 1)


def draft(prompt: str, answer: str, minute: int = 0, *, is_callers: bool = True) -> StoredDraft:
    return StoredDraft(f"{prompt} {answer}", prompt, answer, is_callers, NOW + timedelta(minutes=minute))


def decision(expert: str, prompt: str, judgement: str = "jdg") -> ExpertDecision:
    return ExpertDecision(expert, "memos", prompt, judgement, NOW)


def pairs(count: int) -> list[StoredDraft]:
    return [draft(f"prompt {number}", side) for number in range(count) for side in "ab"]


def test_a_callers_draft_is_compared_with_the_oldest_other_answer_of_its_prompt() -> None:
    drafts = [
        draft(ALONE, "late", 9),
        draft(ALONE, "second", 2, is_callers=False),
        draft(ALONE, "caller's", 1),
        draft("other", "caller's"),
    ]
    queue = make_queue("exp_1", drafts, [])
    assert set(queue.drafts) == {f"{ALONE} caller's", f"{ALONE} second"}
    assert (queue.waiting, queue.incomplete, queue.incomplete_drafts) == (1, 1, ("other caller's",))


def test_prompts_that_no_caller_sent_are_not_in_the_queue() -> None:
    drafts = [draft(ALONE, side, is_callers=False) for side in "ab"] + [draft("other", "a", is_callers=False)]
    queue = make_queue("exp_1", drafts, [])
    assert (queue.drafts, queue.waiting, queue.incomplete) == ((), 0, 0)


def drawn(prompt: str, answer: str, minute: int = 0) -> StoredDraft:
    return replace(draft(prompt, answer, minute, is_callers=False), is_drawn=True)


def test_drawn_prompts_come_after_those_of_callers_and_say_that_they_are_drawn() -> None:
    callers = [draft(f"prompt {number}", side) for number in range(3) for side in "ab"]
    drafts = [drawn(f"drawn {number}", side) for number in range(3) for side in "ab"] + callers
    decided: list[ExpertDecision] = []
    seen = []
    for _ in range(6):
        queue = make_queue("exp_1", drafts, decided)
        prompt = queue.drafts[0].rpartition(" ")[0]
        seen.append((prompt.startswith("drawn"), queue.is_drawn, queue.waiting))
        decided.append(decision("exp_1", prompt))
    assert seen == [(False, False, 6 - number) for number in range(3)] + [
        (True, True, 3 - number) for number in range(3)
    ]
    assert not make_queue("exp_1", drafts, decided).is_drawn


def test_a_drawn_prompt_that_a_caller_sent_too_is_the_callers() -> None:
    drafts = [drawn("same", "a"), draft("same", "b", 1)]
    queue = make_queue("exp_1", drafts, [])
    assert set(queue.drafts) == {"same a", "same b"} and not queue.is_drawn
    assert count_drawn(drafts, [], POLICY) == 0


def test_drawn_prompts_wait_until_somebody_decides_or_their_answers_are_all_alike() -> None:
    alike = [
        StoredDraft(f"drf_{number}", "alike", "same", False, NOW, is_drawn=True) for number in range(2 + SPARE_ANSWERS)
    ]
    drafts = [drawn("judged", side) for side in "ab"] + [drawn("skipped", "a"), drawn("short", "a"), *alike]
    assert count_drawn(drafts, [], POLICY) == 3
    decisions = [decision("exp_1", "judged"), decision("exp_2", "skipped", "")]
    assert count_drawn(drafts, decisions, POLICY) == 1
    assert count_drawn([*drafts, *pairs(3)], decisions, POLICY) == 1


def test_needs_prompts_while_few_wait_with_or_without_enough_drafts() -> None:
    drafts = [draft("prompt 1", side) for side in "ab"] + [draft("prompt 2", "a")]
    assert make_queue("exp_1", drafts, []).needs_prompts
    assert not make_queue("exp_1", [*drafts, draft("prompt 3", "a")], []).needs_prompts


def test_a_prompt_whose_answers_are_all_alike_is_answered_again_a_few_times_only() -> None:
    alike = [StoredDraft(f"drf_{number}", ALONE, "same", not number, NOW) for number in range(2 + SPARE_ANSWERS)]
    assert make_queue("exp_1", alike[:-1], []).incomplete == 1
    queue = make_queue("exp_1", alike, [])
    assert (queue.drafts, queue.incomplete) == ((), 0)


def test_only_a_few_incomplete_drafts_are_named_at_a_time() -> None:
    queue = make_queue("exp_1", [draft(f"prompt {number}", "a") for number in range(9)], [])
    assert (queue.incomplete, len(queue.incomplete_drafts)) == (9, MAX_INCOMPLETE)


def test_what_an_expert_judged_or_skipped_does_not_return() -> None:
    drafts = [draft(prompt, side) for prompt in (ALONE, SHARED) for side in "ab"]
    queue = make_queue("exp_1", drafts, [decision("exp_1", ALONE), decision("exp_1", SHARED, "")])
    assert (queue.drafts, queue.waiting, queue.judged) == ((), 0, 1)
    assert make_queue("exp_2", drafts, [decision("exp_1", SHARED, "")]).waiting == 2


def test_some_prompts_go_to_several_experts_and_the_others_to_one() -> None:
    drafts = [draft(prompt, side) for prompt in (ALONE, SHARED) for side in "ab"]
    first = [decision("exp_1", ALONE), decision("exp_1", SHARED)]
    queue = make_queue("exp_2", drafts, first)
    assert queue.drafts[0].startswith(SHARED)
    assert queue.waiting == 1
    enough = [decision(f"exp_{number}", SHARED) for number in range(POLICY.experts)]
    assert make_queue("exp_9", drafts, [*first, *enough]).waiting == 0


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.6, 1.0])
def test_the_policy_sets_the_share_and_the_experts(share: float) -> None:
    experts = [count_experts(f"prompt {number}", JudgingPolicy(share, 5)) for number in range(2000)]
    assert set(experts) <= {1, 5} and abs(experts.count(5) / len(experts) - share) <= 0.03
    # A larger share keeps the prompts of a smaller one.
    fewer = [count_experts(f"prompt {number}", JudgingPolicy(share / 2, 5)) for number in range(2000)]
    assert all(count >= other for count, other in zip(experts, fewer, strict=True))


@pytest.mark.parametrize(
    ("policy", "wrong"),
    [
        (POLICY, []),
        (JudgingPolicy(0, 2), []),
        (JudgingPolicy(1, 9), []),
        (JudgingPolicy(-0.1), ["judging.overlap_share"]),
        (JudgingPolicy(1.1, 1), ["judging.overlap_share", "judging.experts"]),
        (JudgingPolicy(float("nan"), 10), ["judging.overlap_share", "judging.experts"]),
        (JudgingPolicy(drafts=4, criteria=(TONE,)), []),
        (JudgingPolicy(drafts=5), ["judging.drafts"]),
        (JudgingPolicy(drafts=1), ["judging.drafts"]),
        (JudgingPolicy(criteria=(replace(TONE, name="ranking"),)), ["judging.criteria[0].name"]),
        (JudgingPolicy(criteria=(TONE, TONE)), ["judging.criteria[1].name"]),
        (JudgingPolicy(criteria=(replace(TONE, question=" "),)), ["judging.criteria[0].question"]),
        (
            JudgingPolicy(criteria=(replace(TONE, low="", high="x" * 201),)),
            [f"judging.criteria[0].{end}" for end in ENDS],
        ),
        (JudgingPolicy(criteria=tuple(replace(TONE, name=name) for name in "abcdef")), ["judging.criteria"]),
    ],
)
def test_a_policy_has_limits(policy: JudgingPolicy, wrong: list[str]) -> None:
    assert [*find_judging_violations(policy)] == wrong


@pytest.mark.parametrize(
    ("votes", "needed"),
    [
        ("", False),
        ("a", False),
        ("aa", False),
        ("ab", True),
        ("aaa", False),
        ("aab", True),
        ("ab-", True),
        ("aaab", False),
        ("aabb", True),
        ("aabbb", False),
        ("ab-ab", False),
    ],
)
def test_experts_who_disagree_need_another_one_up_to_two_more(votes: str, needed: bool) -> None:
    assert needs_another_expert([{("a", "b"): vote.replace("-", "")} for vote in votes], 3) is needed
    assert not needs_another_expert([{("a", "b"): vote} for vote in "abab"], 4 - MORE_EXPERTS)


def judged(expert: str, *ranking: str, equal: tuple[str, ...] = ()) -> ExpertDecision:
    return ExpertDecision(expert, "memos", SHARED, f"jdg_{expert}", NOW, ranking=ranking, equal=equal)


def test_votes_are_those_on_the_two_drafts() -> None:
    decisions = [
        judged("1", "a", "b"),
        judged("2", "edited", "b", "a"),
        judged("3", equal=("b", "a")),
        judged("4", "a", "c"),
        judged("5", "a"),
        decision("6", SHARED, ""),
    ]
    assert list_votes(("a", "b"), decisions) == [{("a", "b"): vote} for vote in ("a", "b", "")]


def test_experts_who_ranked_more_drafts_disagree_if_less_than_half_of_the_pairs_are_the_same() -> None:
    first, same, other = judged("1", *"abcd"), replace(judged("2", *"abdc"), places=(1, 2, 2, 3)), judged("3", *"dcba")
    drafts = ("a", "b", "c", "d")
    assert list_votes(drafts, [same]) == [
        {("a", "b"): "a", ("a", "d"): "a", ("a", "c"): "a", ("b", "d"): "", ("b", "c"): "b", ("c", "d"): "d"}
    ]
    assert not needs_another_expert(list_votes(drafts, [first, same]), 2)
    assert needs_another_expert(list_votes(drafts, [first, other]), 2)
    # Two who compared different drafts do not disagree.
    assert not needs_another_expert(list_votes(drafts, [judged("1", "a", "b"), judged("2", "d", "c")]), 2)


def test_a_prompt_waits_until_it_has_as_many_different_drafts_as_experts_rank() -> None:
    policy = JudgingPolicy(drafts=3)
    drafts = [draft(ALONE, name, minute, is_callers=name == "b") for minute, name in enumerate("abcd")]
    queue = make_queue("exp_1", drafts[:2], [], policy)
    assert (queue.waiting, queue.incomplete_drafts) == (0, (f"{ALONE} b",))
    queue = make_queue("exp_1", drafts, [], policy)
    assert (queue.waiting, queue.incomplete) == (1, 0)
    assert sorted(queue.drafts) == [f"{ALONE} {name}" for name in "abc"]


def test_a_prompt_whose_drafts_are_often_the_same_is_offered_with_fewer() -> None:
    policy = JudgingPolicy(drafts=4)
    other = StoredDraft("drf_other", ALONE, "other", False, NOW)
    same = [StoredDraft(f"drf_{number}", ALONE, "same", not number, NOW) for number in range(3 + SPARE_ANSWERS)]
    assert make_queue("exp_1", [other, *same[:-1]], [], policy).incomplete == 1
    queue = make_queue("exp_1", [other, *same], [], policy)
    assert (sorted(queue.drafts), queue.incomplete) == (["drf_0", "drf_other"], 0)


def test_a_prompt_on_which_experts_disagree_returns_to_the_queue_for_one_more() -> None:
    drafts = [draft(SHARED, side) for side in "ab"]
    left, right = f"{SHARED} a", f"{SHARED} b"
    decisions = [judged("1", left, right), judged("2", left, right), judged("3", right, left)]
    assert make_queue("4", drafts, decisions).waiting == 1
    assert [make_queue(expert, drafts, decisions).waiting for expert in "123"] == [0, 0, 0]
    assert make_queue("4", drafts, [*decisions[:2], judged("3", left, right)]).waiting == 0
    agreed = [*decisions, judged("4", left, right)]
    assert make_queue("5", drafts, agreed).waiting == 0
    split = [*decisions, judged("4", right, left)]
    assert make_queue("5", drafts, split).waiting == 1
    assert make_queue("6", drafts, [*split, judged("5", left, right)]).waiting == 0


def test_order_and_sides_differ_by_expert_and_stay_the_same_for_each() -> None:
    drafts = pairs(60)
    queues = [make_queue(f"exp_{number}", drafts, []).drafts for number in range(12)]
    assert queues == [make_queue(f"exp_{number}", drafts[::-1], []).drafts for number in range(12)]
    assert len({drafts[0].rpartition(" ")[0] for drafts in queues}) > 6
    sides = [make_queue(f"exp_{number}", pairs(1), []).drafts for number in range(200)]
    assert 70 < sum(drafts == ("prompt 0 a", "prompt 0 b") for drafts in sides) < 130
