"""The inference bench's own arithmetic, checks and page."""

from pathlib import Path

import pytest

from bench import inference_page
from bench.inference_events import Killing, LoadSize
from bench.inference_layer import added
from bench.inference_load import TOKENS, LoadOutcome, TimedAnswer, is_right, percentile
from bench.inference_speed import ratios
from tailor.client import Provenance

pytestmark = pytest.mark.release

GIVEN = Provenance("reports", 2, "b" * 64, "tiny")


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert [percentile(values, share) for share in (0.5, 0.95, 0.99, 1.0)] == [50, 95, 99, 100]
    assert percentile([7.0], 0.5) == 7.0


@pytest.mark.parametrize(
    ("name", "digest", "word", "right"),
    [
        ("reports", "b" * 64, "ol", True),
        ("memos", "b" * 64, "ol", False),
        ("reports", "c" * 64, "ol", False),
        ("reports", "b" * 64, "gh", False),
        ("reports", "", "", False),
    ],
)
def test_an_answer_is_right_if_its_text_its_digest_and_its_generation_agree(
    name: str, digest: str, word: str, right: bool
) -> None:
    assert is_right(name, GIVEN, digest, word, "ol" * TOKENS) is right
    assert not is_right(name, GIVEN, digest, word, "ol" * (TOKENS - 1))


def test_what_callers_saw_is_counted_and_timed_by_token() -> None:
    answers = [TimedAnswer(GIVEN, "", 0.1, 0.8, 7), TimedAnswer(GIVEN, "", 0.3, 1.0, 7)]
    outcome = LoadOutcome(answers, ["QUEUE_FULL", "QUEUE_FULL"], 1)
    assert outcome.figures() == {
        "requests": 4,
        "errors": 2,
        "reasons": ["QUEUE_FULL"],
        "wrong_adapter": 1,
        "generations": 1,
    }
    assert outcome.times()["p50"] == {"first_token_ms": 100.0, "per_token_ms": 100.0}
    assert outcome.times()["p99"] == {"first_token_ms": 300.0, "per_token_ms": 100.0}


def test_what_the_layer_adds_is_told_by_length_in_milliseconds() -> None:
    assert added({1: [0.010, 0.012, 0.9], 2: [0.02]}, {1: [0.013, 0.014, 0.015], 2: [0.025]}) == {1: 2.0, 2: 5.0}


def test_load_goes_on_until_enough_calls_were_begun_after_the_restart() -> None:
    killing = Killing(victim=None, size=LoadSize(kill_after=10, after_restart=5))  # type: ignore[arg-type]
    killing.answered(1)
    assert killing.goes_on(10_000)
    killing.restart_seconds = 3.0
    killing.answered(40)
    assert killing.goes_on(44)
    assert not killing.goes_on(45)


def figures() -> dict[str, object]:
    rates = dict.fromkeys(inference_page.SIDES, 100.0) | {"ours": 200.0}
    times = {share: {"first_token_ms": 12.5, "per_token_ms": 3.0} for share in ("p50", "p95", "p99")}
    load = {"base": "tiny", "requests": 2000, "errors": 0, "wrong_adapter": 0, "generations": 9, **times}
    rolled = load | {"changes": 16, "change_ms": {"p50": 200, "max": 700}}
    speed = {
        "cores": 2,
        "rounds": 5,
        "threads": dict.fromkeys(rates, 2),
        "tokens_per_second": rates,
        "median_tokens_per_second": rates,
    }
    return {**speed, "tokens_per_cpu_second": rates, **ratios(rates), "load": load, "load_with_rollouts": rolled}


def test_the_page_and_the_plot_show_what_was_measured_and_no_more(tmp_path: Path) -> None:
    page = inference_page.render(figures())
    assert "2.0 times `generate`" in page
    assert "| load | tiny | 2000 | 0 | 0 | 12.5, 12.5, 12.5 | 3, 3, 3 |" in page
    assert "16 promotions and rollbacks" in page
    assert "kill -9" not in page and "Our layer" not in page
    inference_page.plot(figures(), tmp_path / "plots" / "inference.svg")
    drawn = (tmp_path / "plots" / "inference.svg").read_text(encoding="utf-8")
    assert all(text in drawn for text in ("tokens/s, 16 callers", "with rollouts", "vLLM's server, mixed"))
    inference_page.plot({}, tmp_path / "nothing.svg")
