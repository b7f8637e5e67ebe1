"""What the gate's bench counts of fresh demos."""

import pytest

from bench.gate_demo import count_promoted, summarise
from bench.gate_page import render

pytestmark = pytest.mark.release

PASSED = {"verdict": {"decision": "passed", "reasons": []}, "seconds": {"training": 130.0}}
UNDECIDED = {"verdict": {"decision": "undecided", "reasons": ["with 8 rows nothing can be seen"]}, "seconds": {}}


def test_a_demo_counts_only_if_it_passed_the_gate_and_ended_well() -> None:
    demos = [
        summarise(PASSED, 300.0, 0, "done"),
        summarise(UNDECIDED, 290.0, 1, "error: GATE_NOT_MET"),
        summarise(PASSED, 280.0, 1, "error: STALLED"),
        summarise({}, 10.0, 1, "error: STACK_NOT_READY"),
    ]

    counted = count_promoted(demos)

    assert (counted["demo_promoted"], counted["demo_times"]) == (1, 4)
    assert [demo["decision"] for demo in demos] == ["passed", "undecided", "passed", "failed"]
    assert [demo["output"] for demo in demos[1:]] == [
        ["error: GATE_NOT_MET"],
        ["error: STALLED"],
        ["error: STACK_NOT_READY"],
    ]


@pytest.mark.parametrize(("demos", "text"), [([PASSED], "1 of 1"), ([PASSED, UNDECIDED], "1 of 2")])
def test_the_section_says_how_many_were_promoted(demos: list[dict[str, object]], text: str) -> None:
    figures = count_promoted([summarise(demo, 300.0, int(demo is UNDECIDED), "") for demo in demos])

    assert f"`demo_promoted`: {text} demos" in render(figures)
