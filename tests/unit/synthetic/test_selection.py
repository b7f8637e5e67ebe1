"""The choice of clusters, splits and rows, and the rule for when a dataset is due."""

from services.synthetic.domain import Assignment, BuildPolicy, BuildProgress, Row, is_due, is_held_out
from services.synthetic.selection import assign_clusters, choose_representatives, fit_budget, split_rows
from tailor.words import Labels, Selection


def row(number: int, text: str = "", made_by: str = "structure") -> Row:
    return Row("section", (f"doc_{number}",), f"Write part {number}.", text or f"Part {number} " * 8, made_by)


def test_the_lowest_id_names_a_new_cluster() -> None:
    assigned = assign_clusters([frozenset({"doc_2", "doc_1"})], {}, 12)
    assert {item.cluster_id for item in assigned.values()} == {"doc_1"}


def test_a_new_document_joins_a_known_cluster() -> None:
    known = {"doc_5": Assignment("doc_5", "doc_5", held_out=True)}
    assigned = assign_clusters([frozenset({"doc_1", "doc_5"})], known, 12)
    assert assigned == {"doc_1": Assignment("doc_1", "doc_5", held_out=True)}


def test_a_document_between_two_clusters_joins_the_lower_one() -> None:
    known = {key: Assignment(key, key, held_out=key == "doc_3") for key in ("doc_2", "doc_3")}
    assigned = assign_clusters([frozenset({"doc_2", "doc_3", "doc_9"})], known, 12)
    assert assigned == {"doc_9": Assignment("doc_9", "doc_2", held_out=False)}


def test_the_document_that_names_a_cluster_represents_it() -> None:
    assigned = {key: Assignment(key, "doc_5", held_out=False) for key in ("doc_1", "doc_5")}
    assert choose_representatives(["doc_1", "doc_5"], assigned) == ["doc_5"]
    assert choose_representatives(["doc_1"], assigned) == ["doc_1"]


def test_holds_out_about_the_requested_percentage() -> None:
    assert 80 <= sum(is_held_out(f"doc_{number}", 12) for number in range(1000)) <= 160


def test_no_answer_of_a_held_out_row_is_in_train() -> None:
    assigned = {f"doc_{n}": Assignment(f"doc_{n}", f"doc_{n}", held_out=n == 1) for n in range(4)}
    rows = [row(0), row(1, "The same words."), row(2, "The  SAME words"), row(3), row(0)]
    train, held_out = split_rows(rows, assigned)
    assert {item.document_ids[0] for item in train} == {"doc_0", "doc_3"}
    assert [item.document_ids[0] for item in held_out] == ["doc_1"]
    assert [item.row_id for item in train] == sorted(item.row_id for item in train)


def test_the_budget_keeps_human_rows_and_is_repeatable() -> None:
    rows = [row(n) for n in range(20)] + [row(99, "Written by a person. " * 40, "human")]
    kept = fit_budget(rows, 400)
    assert kept == fit_budget(list(reversed(rows)), 400)
    assert any(item.made_by == "human" for item in kept)
    assert sum(item.tokens for item in kept) <= 400


def test_a_selection_admits_by_label() -> None:
    assert Selection().admits(Labels("wiki"))
    assert Selection(("wiki",), ("risk",)).admits(Labels("wiki", "risk"))
    assert not Selection(("wiki",), ("risk",)).admits(Labels("wiki", "people"))


def test_a_dataset_is_due_by_count_quiet_and_interval() -> None:
    policy = BuildPolicy(min_new_items=3, quiet_seconds=10, min_interval_seconds=60)
    ready = BuildProgress(
        newest_position=9, new_items=3, seconds_since_new=10, seconds_since_build=60, tried_position=6
    )
    assert is_due(policy, ready)
    for wrong in (
        BuildProgress(9, 2, 10, 60, 6),
        BuildProgress(9, 3, 9, 60, 6),
        BuildProgress(9, 3, 10, 59, 6),
        BuildProgress(9, 3, 10, 60, 9),
    ):
        assert not is_due(policy, wrong)
    assert not is_due(BuildPolicy(), ready)
