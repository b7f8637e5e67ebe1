from services.synthetic.domain import Assignment, Labels, Policy, Progress, Row, Selection, is_due
from services.synthetic.selection import is_held_out, new_assignments, representatives, split_rows, within_budget


def row(number: int, text: str = "", made_by: str = "structure") -> Row:
    return Row("section", (f"doc_{number}",), f"Write part {number}.", text or f"Part {number} " * 8, made_by)


def test_a_group_is_named_by_its_lowest_id() -> None:
    made = new_assignments([frozenset({"doc_2", "doc_1"})], {}, 12)
    assert {one.cluster_id for one in made.values()} == {"doc_1"}


def test_a_newcomer_joins_and_never_changes_what_was_assigned() -> None:
    known = {"doc_5": Assignment("doc_5", "doc_5", held_out=True)}
    made = new_assignments([frozenset({"doc_1", "doc_5"})], known, 12)
    assert made == {"doc_1": Assignment("doc_1", "doc_5", held_out=True)}


def test_a_bridge_between_two_clusters_joins_one_of_them() -> None:
    known = {key: Assignment(key, key, held_out=key == "doc_3") for key in ("doc_2", "doc_3")}
    made = new_assignments([frozenset({"doc_2", "doc_3", "doc_9"})], known, 12)
    assert made == {"doc_9": Assignment("doc_9", "doc_2", held_out=False)}


def test_the_naming_document_stands_for_its_cluster() -> None:
    assigned = {key: Assignment(key, "doc_5", held_out=False) for key in ("doc_1", "doc_5")}
    assert representatives(["doc_1", "doc_5"], assigned) == ["doc_5"]
    assert representatives(["doc_1"], assigned) == ["doc_1"]


def test_about_the_share_asked_for_is_held_out() -> None:
    assert 80 <= sum(is_held_out(f"doc_{number}", 12) for number in range(1000)) <= 160


def test_no_text_of_a_held_out_row_is_in_train() -> None:
    assigned = {f"doc_{n}": Assignment(f"doc_{n}", f"doc_{n}", held_out=n == 1) for n in range(4)}
    rows = [row(0), row(1, "The same words."), row(2, "The  SAME words"), row(3), row(0)]
    train, held_out = split_rows(rows, assigned)
    assert {one.document_ids[0] for one in train} == {"doc_0", "doc_3"}
    assert [one.document_ids[0] for one in held_out] == ["doc_1"]
    assert [one.row_id for one in train] == sorted(one.row_id for one in train)


def test_the_budget_keeps_human_rows_and_is_the_same_again() -> None:
    rows = [row(n) for n in range(20)] + [row(99, "Said by a person. " * 40, "human")]
    kept = within_budget(rows, 400)
    assert kept == within_budget(list(reversed(rows)), 400)
    assert any(one.made_by == "human" for one in kept)
    assert sum(one.tokens for one in kept) <= 400


def test_a_selection_admits_by_label() -> None:
    assert Selection().admits(Labels("wiki"))
    assert Selection(frozenset({"wiki"}), frozenset({"risk"})).admits(Labels("wiki", "risk"))
    assert not Selection(frozenset({"wiki"}), frozenset({"risk"})).admits(Labels("wiki", "people"))


def test_a_dataset_is_due_by_count_quiet_and_interval() -> None:
    policy = Policy(min_new_items=3, quiet_seconds=10, min_interval_seconds=60)
    ready = Progress(newest_position=9, new_items=3, seconds_since_new=10, seconds_since_build=60, tried_position=6)
    assert is_due(policy, ready)
    for wrong in (
        Progress(9, 2, 10, 60, 6),
        Progress(9, 3, 9, 60, 6),
        Progress(9, 3, 10, 59, 6),
        Progress(9, 3, 10, 60, 9),
    ):
        assert not is_due(policy, wrong)
    assert not is_due(Policy(), ready)
