"""The README's table of several demos."""

from typing import Any

from bench.demo import README, render, to_demo
from bench.report import ROOT

MACHINE = "commit abc, 2 cores"


def estimate(value: float, half: float = 0.1) -> dict[str, Any]:
    return {"value": value, "low": value - half, "high": value + half, "rows": 24}


def demo(likelihood: float, terms: float, decision: str = "passed", rows: int = 24) -> dict[str, Any]:
    """A demo whose gains over the base are these."""
    metrics = [
        {
            "metric": name,
            "lower_is_better": False,
            "models": {"base": estimate(0.5), "candidate": estimate(0.5 + gain)},
            "gains": {"base": estimate(gain)},
        }
        for name, gain in (("log_likelihood", likelihood), ("house_terms", terms))
    ]
    figures = {
        "verdict": {"decision": decision, "reasons": []},
        "promoted": decision == "passed",
        "evaluation": {"rows": rows, "metrics": metrics, "suites": []},
        "seconds": {"training": 600.0},
    }
    return to_demo(figures, 700.0 + rows, int(decision != "passed"), "")


def test_the_table_has_the_median_and_range_of_every_metric_and_in_how_many_demos_a_gain_is_certain() -> None:
    text = render([demo(0.7, -0.5), demo(0.5, 0.0), demo(0.6, -0.2, "undecided", 26)], MACHINE)

    assert "Median of 3 demos in fresh directories (commit abc, 2 cores)" in text
    assert "2 of 3 were promoted, in 724 to 726 s each" in text
    assert "measured 24 to 26 held-out rows" in text
    lines = {line.split(" | ")[0]: line for line in text.splitlines() if line.startswith("| ")}
    assert (
        "1.100 (1.000 to 1.200) | +0.600 (+0.500 to +0.700); certainly better in 3 of 3 | " in lines["| log likelihood"]
    )
    assert "-0.200 (-0.500 to +0.000); certainly worse in 2 of 3 | " in lines["| house terms"]


def test_the_section_says_by_what_the_gate_decides() -> None:
    text = render([demo(0.7, -0.5)], MACHINE)
    assert "- gate: log_likelihood must certainly gain more than" in text
    assert "measured 24 held-out rows" in text


def test_a_demo_that_failed_counts_and_is_not_in_the_table() -> None:
    failed = to_demo({}, 20.0, 1, "error: STACK_NOT_READY")
    text = render([demo(0.7, -0.5), failed], MACHINE)
    assert "Median of 1 demo in fresh" in text and "1 of 2 were promoted, in 20 to 724 s each" in text


def test_the_readme_has_a_place_for_the_table() -> None:
    text = README.read_text(encoding="utf-8")
    assert README.parent == ROOT
    assert text.count("<!-- demo -->") == text.count("<!-- /demo -->") == 1
