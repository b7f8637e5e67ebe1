"""`tailor specialist leaderboard`."""

from tailor.api.registry.v1 import registry_pb2
from tests.evaluations import make_estimate
from tests.fakes.serving import ADAPTER
from tests.unit.cli.conftest import Services, Tailor

NAME = "engagement-reports"


def test_shows_scores_with_intervals_and_pins_by_first_digits(tailor: Tailor, services: Services) -> None:
    tuned = registry_pb2.LeaderboardEntry(rank=1, model="candidate", adapter_digest=ADAPTER, rows=16)
    tuned.state = registry_pb2.ADAPTER_STATE_SERVING
    tuned.scores["rougeL"].CopyFrom(make_estimate(0.3))
    tuned.cost.median_seconds, tuned.cost.price_per_1000, tuned.cost.currency = 1.5, 0.25, "EUR"
    services.registry.entries = [tuned]

    shown = tailor("specialist", "leaderboard", NAME, "--pin", "abababab", "--unpin", "few_shot").out

    assert "0.300 (0.295 to 0.305)" in shown and "serving" in shown
    assert "1.50 s" in shown and "0.25 EUR" in shown
    assert services.registry.pins == [(ADAPTER, True), ("few_shot", False)]
