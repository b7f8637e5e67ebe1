"""Ranks of adapters and prompts."""

from google.protobuf.timestamp_pb2 import Timestamp

from services.registry.adapters.leaderboard import make_leaderboard
from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import registry_pb2
from tests.evaluations import make_evaluated, make_figures


def adapter(digest: str, score: float, *, dataset: str = "d1", seconds: int = 1) -> registry_pb2.CatalogueAdapter:
    figures = make_figures("rougeL", base=0.1, few_shot=0.2, incumbent=0.15, candidate=score)
    cost = models_pb2.ModelCost(model="few_shot", answers=16, median_seconds=2.5)
    evaluation = make_evaluated(digest, "reports", figures, dataset_digest=dataset, costs=[cost])
    evaluation.create_time.CopyFrom(Timestamp(seconds=seconds))
    weights = models_pb2.AdapterTrained(digest=digest, kind=models_pb2.ADAPTER_KIND_POLICY)
    return registry_pb2.CatalogueAdapter(
        adapter=weights, evaluation=evaluation, state=registry_pb2.ADAPTER_STATE_PASSED
    )


def names(leaderboard: registry_pb2.GetLeaderboardResponse) -> list[tuple[int, str]]:
    return [(entry.rank, entry.adapter_digest or entry.model) for entry in leaderboard.entries]


def test_adapters_and_prompts_are_ranked_together() -> None:
    leaderboard = make_leaderboard([adapter("good", 0.3), adapter("poor", 0.12)], "rougeL", ())
    assert names(leaderboard) == [(1, "good"), (2, "few_shot"), (3, "poor"), (4, "base")]
    prompt = leaderboard.entries[1]
    assert (prompt.cost.median_seconds, prompt.state) == (2.5, registry_pb2.ADAPTER_STATE_UNSPECIFIED)
    assert leaderboard.entries[0].gains["rougeL"].low > 0.19


def test_each_dataset_has_its_own_ranks_and_the_newest_comes_first() -> None:
    older, newer = adapter("old", 0.9, dataset="d1"), adapter("new", 0.3, dataset="d2", seconds=2)
    ranked = names(make_leaderboard([older, newer], "rougeL", ()))
    assert ranked == [(1, "new"), (2, "few_shot"), (3, "base"), (1, "old"), (2, "few_shot"), (3, "base")]


def test_pinned_entries_come_first_and_keep_their_ranks() -> None:
    ranked = names(make_leaderboard([adapter("good", 0.3)], "rougeL", {"base"}))
    assert ranked == [(3, "base"), (1, "good"), (2, "few_shot")]


def test_a_metric_that_was_not_measured_ranks_nothing() -> None:
    assert {rank for rank, _ in names(make_leaderboard([adapter("good", 0.3)], "bleu", ()))} == {0}


def test_adapters_without_an_evaluation_are_counted() -> None:
    new = registry_pb2.CatalogueAdapter(adapter=models_pb2.AdapterTrained(kind=models_pb2.ADAPTER_KIND_POLICY))
    assert make_leaderboard([adapter("good", 0.3), new], "rougeL", ()).not_evaluated == 1
