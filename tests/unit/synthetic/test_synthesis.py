"""The rules of a synthesis: plan, prompts, answers, checks, budgets and what is refused before anything is asked."""

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from services.synthetic.adapters.translation_score import ChrfScore
from services.synthetic.domain import Specialist
from services.synthetic.synthesis.answers import parse_mark, parse_rows, parse_text
from services.synthetic.synthesis.checks import RowChecks, make_candidate
from services.synthetic.synthesis.domain import (
    GridAttribute,
    ModelRole,
    ModelUse,
    Refusal,
    SeedExample,
    SynthesisSpec,
    SynthesisUse,
    TokenCount,
    TokenPrice,
    worst_case,
)
from services.synthetic.synthesis.handlers import check_spec
from services.synthetic.synthesis.plan import Seed, SynthesisPlan
from services.synthetic.synthesis.prompts import teacher_messages
from services.synthetic.synthesis.similar import HeldOutTexts, SimilarTexts, is_copy
from tailor.errors import InvalidArgument
from tailor.values import OwnTask, RowPolicy
from tests.synthesis import WordCounter, distinct, missing_numbers, passage, rows_json

SPECIALIST = Specialist("reports", 1, "tiny", "lora", use_teacher=True)
SPEC = SynthesisSpec("reports", "risk-assessment", 10, instruction="Assess the risk.", budget_tokens=1000)
SEEDS = [Seed(f"doc_{n}:0-9", passage(topic), document_id=f"doc_{n}", language="en") for n, topic in enumerate("abc")]


def test_every_passage_meets_every_cell_of_the_grid_once_before_one_repeats() -> None:
    attributes = (GridAttribute("sector", ("a", "b")), GridAttribute("risk", ("low", "high")))
    spec = replace(SPEC, task="answer", attributes=attributes, personas=("x", "y"), languages=("de", "fr"))
    plan = SynthesisPlan("key", spec, SEEDS)
    requests = [plan.request(number) for number in range(3 * 16)]
    cells = Counter((r.passage and r.passage.key, r.attributes, r.persona, r.language) for r in requests)
    assert len(cells) == 48 and set(cells.values()) == {1}
    assert {request.variant for request in requests} == {0} and plan.request(48).variant == 1
    # The first requests differ in every dimension already.
    assert len({request.attributes for request in requests[:6]}) > 2


def test_a_plan_follows_from_its_key() -> None:
    first, second = (SynthesisPlan("key", SPEC, seeds) for seeds in (SEEDS, SEEDS[::-1]))
    assert [first.request(n) for n in range(9)] == [second.request(n) for n in range(9)]


def test_own_tasks_see_seeds_as_examples_and_others_as_their_source() -> None:
    own = SynthesisPlan("key", SPEC, [*SEEDS, Seed("example:1", "Low.", "Assess.")]).request(0)
    assert own.passage is None and own.examples[0].key == "example:1" and len(own.examples) == 3
    answer = SynthesisPlan("key", replace(SPEC, task="answer"), SEEDS).request(0)
    assert answer.passage in SEEDS and answer.examples == () and answer.document_ids == (answer.passage.document_id,)


def test_the_prompt_has_instruction_grid_persona_language_and_seeds() -> None:
    spec = replace(
        SPEC, attributes=(GridAttribute("sector", ("banks",)),), personas=("a new analyst",), languages=("de",)
    )
    request = SynthesisPlan("key", spec, [Seed("example:1", "Niedrig.", "Bewerte."), SEEDS[0]]).request(0)
    system, user = (content for _, content in teacher_messages(spec, "Assess the risk.", request))
    assert "Write in German." in system and '{"rows": [{"request"' in system
    for part in ("Assess the risk.", "sector: banks", "a new analyst", "Bewerte.", "Niedrig.", SEEDS[0].text):
        assert part in user


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Sure! " + rows_json(("a", "b")),
        json.dumps([{"request": "a", "answer": "b"}]),
        json.dumps({"rows": []}),
        json.dumps({"rows": [{"request": "a"}]}),
        json.dumps({"rows": [{"request": "a", "answer": 3}]}),
        json.dumps({"rows": [{"request": " ", "answer": "b"}]}),
        json.dumps({"rows": [{"request": "a", "answer": "b", "note": "c"}]}),
        json.dumps({"rows": [{"request": "a", "answer": "b"}], "note": "c"}),
        rows_json(("a", "b"))[:-2],
    ],
)
def test_an_answer_is_exactly_the_requested_json(text: str) -> None:
    assert parse_rows(text) == ()


def test_one_code_fence_is_accepted() -> None:
    assert parse_rows(f"```json\n{rows_json((' a ', 'b'))}\n```") == (("a", "b"),)
    assert parse_text('{"text": "x"}') == "x" and parse_text("x") == ""
    assert [parse_mark(text) for text in ('{"mark": 4}', '{"mark": 6}', '{"mark": "4"}', "4")] == [4, 0, 0, 0]


@pytest.mark.parametrize(
    ("hypothesis", "reference", "score"),
    [
        ("The policy has 17 parts.", "The policy has 17 parts.", 100.0),
        # Popović (2015): for "abc" against "abcd" the mean precision of 1- to 3-grams is 1, their mean recall (3/4 + 2/3 + 1/2) / 3.
        ("abc", "abcd", 100 * 5 * (23 / 36) / (4 + 23 / 36)),
        ("xyz", "abcd", 0.0),
        ("", "abcd", 0.0),
    ],
)
def test_scores_a_translation_by_chrf(hypothesis: str, reference: str, score: float) -> None:
    assert ChrfScore()(hypothesis, reference) == pytest.approx(score, abs=0.01)


def test_finds_near_duplicates_and_no_others() -> None:
    known = SimilarTexts()
    for number in range(50):
        known.add(distinct(number))
    assert known.has_similar(distinct(7) + " and more") and not known.has_similar(distinct(99))
    assert is_copy(distinct(1, 40), distinct(1, 45)) and not is_copy(distinct(1, 5), distinct(1, 60))


def test_thirteen_words_of_a_held_out_row_are_too_many_unless_many_rows_have_them() -> None:
    held_out = HeldOutTexts([distinct(1, 60), *(f"{distinct(n, 20)} {distinct(900, 20)}" for n in range(20, 32))])
    inside = " ".join(distinct(1, 60).split()[20:33])
    assert held_out.has_similar(f"{distinct(5)} {inside} {distinct(6)}")
    assert not held_out.has_similar(f"{distinct(5)} {' '.join(inside.split()[:12])} {distinct(6)}")
    assert not held_out.has_similar(f"{distinct(5)} {distinct(900, 20)} {distinct(6)}")


def checks(policy: RowPolicy | None = None) -> RowChecks:
    specialist = replace(SPECIALIST, rows=policy or RowPolicy())
    return RowChecks(specialist, WordCounter(), missing_numbers, HeldOutTexts([]))


def refusal(task: str, pair: tuple[str, str], view: str = "") -> Refusal | None:
    plan = SynthesisPlan("key", replace(SPEC, task=task, languages=("de",) if task == "translation" else ()), SEEDS[:1])
    requests = (plan.request(number) for number in range(20))
    request = next(request for request in requests if request.task.view == view)
    return checks().refuse(make_candidate(request, pair, "wise", ()))


SOURCE = SEEDS[0].text
LONG = distinct(3, 12)


@pytest.mark.parametrize(
    ("task", "view", "pair", "expected"),
    [
        ("answer", "", ("Why?", f"{LONG} in 2024."), None),
        ("answer", "", ("Why?", f"{LONG} in 2025."), Refusal.UNFAITHFUL),
        ("answer", "", ("Why?", SOURCE), Refusal.NEAR_DUPLICATE_OF_SEED),
        ("answer", "", ("Why?", "Short."), Refusal.TOO_SHORT),
        ("knowledge", "extract", ("Quote.", "The a policy has 17 parts."), None),
        ("knowledge", "extract", ("Quote.", "The policy is made of many parts, all of them old."), Refusal.UNFAITHFUL),
        ("knowledge", "absent", ("Who signed?", "Our documents do not say."), None),
        ("knowledge", "closed", ("How many parts has the a policy?", f"{LONG} 17"), None),
        ("knowledge", "closed", ("How many of the 99 parts are old?", f"{LONG} 17"), Refusal.UNFAITHFUL),
        ("rewrite", "", ("Put it into our style.", f"{LONG} 17 and 2024"), None),
        ("rewrite", "", ("Put it into our style.", f"{LONG} 17"), Refusal.UNFAITHFUL),
        ("rewrite", "", ("Put it into our style.", f"{LONG} 17 and 2024 and 5"), Refusal.UNFAITHFUL),
        ("translation", "", ("Bitte.", f"{LONG} ohne Zahlen"), Refusal.UNFAITHFUL),
    ],
)
def test_each_task_is_held_to_its_source(task: str, view: str, pair: tuple[str, str], expected: Refusal | None) -> None:
    assert refusal(task, pair, view) is expected


def test_a_rewrite_answers_with_the_houses_own_text() -> None:
    request = SynthesisPlan("key", replace(SPEC, task="rewrite"), SEEDS[:1]).request(0)
    row = make_candidate(request, ("Our style, please:", "Plain words."), "wise", (("synthesis", "syn_1"),)).row
    assert row.messages == (("user", "Our style, please:\n\nPlain words."), ("assistant", SOURCE))
    assert (row.made_by, dict(row.lineage)["synthesis"]) == ("teacher:wise", "syn_1")


def test_the_teacher_sees_all_of_the_passage_that_a_rewrite_answers_with() -> None:
    seed = Seed("doc_1:0-9", distinct(4, 900), document_id="doc_1", language="en", heading="Findings")
    request = SynthesisPlan("key", replace(SPEC, task="rewrite"), [seed]).request(0)
    row = make_candidate(request, ("Our style, please:", "Plain words."), "wise", ()).row
    assert row.completion in teacher_messages(SPEC, "", request)[-1][1] and len(row.completion) > 6000


def test_a_row_longer_than_the_policy_is_too_long() -> None:
    request = SynthesisPlan("key", SPEC, SEEDS).request(0)
    candidate = make_candidate(request, ("Assess.", distinct(1, 60)), "wise", ())
    assert checks(RowPolicy(max_row_tokens=50)).refuse(candidate) is Refusal.TOO_LONG
    assert checks(RowPolicy(max_row_tokens=80)).refuse(candidate) is None


def test_the_worst_case_is_at_least_a_token_per_byte() -> None:
    messages = (("system", "é" * 10), ("user", "abc"))
    assert worst_case(messages, 7).completion == 7 and worst_case(messages, 7).prompt >= 23


def test_budgets_count_reservations_and_lost_answers_of_both_models() -> None:
    spec = replace(
        SPEC, budget_tokens=300, budget_eur=0.003, teacher_price=TokenPrice(10, 10), judge_price=TokenPrice(0, 20)
    )
    use = SynthesisUse(teacher=ModelUse(TokenCount(50, 50), TokenCount(20, 30), TokenCount(30, 20)))
    assert spec.allows(use)
    judged = use.with_role(ModelRole.JUDGE, ModelUse(TokenCount(0, 50)))
    assert spec.allows(judged) and spec.cost(judged, reserved=True) == spec.teacher_price.cost(TokenCount(300, 0))  # type: ignore[union-attr]
    assert not spec.allows(judged.with_role(ModelRole.JUDGE, ModelUse(TokenCount(0, 51))))
    assert not replace(spec, judge_price=None).allows(judged)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"target": 0}, "target"),
        ({"budget_tokens": 0}, "budget"),
        ({"instruction": ""}, "instruction"),
        ({"task": "translation"}, "languages"),
        ({"examples": (SeedExample("a", " "),)}, "examples"),
        ({"attributes": (GridAttribute("x", ()),)}, "attributes"),
        ({"attributes": tuple(GridAttribute(str(n), tuple("abcdefghij")) for n in range(5))}, "grid"),
        ({"min_mark": 6}, "min_mark"),
        ({"temperature": 3.0}, "temperature"),
        ({"teacher_price": TokenPrice(-1, 0)}, "price"),
        ({"max_answer_tokens": 1}, "max_answer_tokens"),
    ],
)
def test_a_wrong_field_is_named(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        check_spec(replace(SPEC, **changes), SPECIALIST)
    assert list(raised.value.field_violations) == [field]


def test_the_specialists_own_task_needs_no_instruction() -> None:
    own = replace(SPECIALIST, rows=RowPolicy(own_tasks=(OwnTask("risk-assessment", "Assess the risk."),)))
    check_spec(replace(SPEC, instruction=""), own)
