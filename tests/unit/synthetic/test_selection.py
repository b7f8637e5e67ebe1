"""Components and their sides, and the rule for when a dataset is due."""

from services.synthetic.building.split import group_components
from services.synthetic.corpus import Link
from services.synthetic.domain import BuildPolicy, BuildProgress, describe_wait, is_due
from tailor.rounds import is_held_out
from tailor.values import Labels, Selection


def test_documents_that_share_a_passage_are_one_component_through_others_too() -> None:
    links = [Link(1, "a"), Link(1, "b"), Link(2, "b"), Link(2, "c"), Link(3, "d")]
    components = group_components(["c", "b", "a", "d", "e"], links)
    assert [(c.component_id, c.new, c.known_side) for c in components] == [
        ("c", ["c", "b", "a"], None),
        ("d", ["d"], None),
        ("e", ["e"], None),
    ]


def test_a_new_document_joins_the_side_of_an_earlier_one() -> None:
    (component,) = group_components(["new"], [Link(1, "old", "first", held_out=True), Link(1, "new")])
    assert (component.component_id, component.new, component.known_side) == ("first", ["new"], True)


def test_a_document_between_both_sides_is_held_out_and_keeps_the_lowest_name() -> None:
    links = [Link(1, "x", "p"), Link(1, "new"), Link(2, "new"), Link(2, "y", "q", held_out=True)]
    (component,) = group_components(["new"], links)
    assert (component.component_id, component.known_side) == ("p", True)


def test_earlier_documents_alone_make_no_component() -> None:
    assert group_components([], [Link(1, "x", "p"), Link(1, "y", "q")]) == []


def test_holds_out_about_the_requested_percentage() -> None:
    assert 80 <= sum(is_held_out(f"doc_{number}", 12) for number in range(1000)) <= 160


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


def test_a_sentence_says_what_a_build_waits_for_by_the_same_rule() -> None:
    policy = BuildPolicy(min_new_items=3, quiet_seconds=10, min_interval_seconds=60)

    def describe(*figures: float | None) -> str:
        newest, new, since_new, since_build, tried = figures
        progress = BuildProgress(int(newest or 0), int(new or 0), since_new, since_build, int(tried or 0))
        sentence = describe_wait(policy, progress, "documents")
        assert is_due(policy, progress) == ("is due" in sentence), sentence
        return sentence

    assert describe(9, 3, 10, 60, 6) == "Enough new documents; the build is due."
    assert describe(9, 3, 10, None, 0) == "Enough new documents; the build is due."
    assert describe(9, 2, 10, 60, 6) == "2 new documents; a build needs 3: 1 to go."
    assert "6 seconds after the newest one" in describe(9, 3, 4, 60, 6)
    assert "too recent: 50 seconds to go" in describe(9, 3, 10, 10, 6)
    # The longer of both waits is named.
    assert "8 seconds after the newest one" in describe(9, 3, 2, 55, 6)
    assert describe(9, 0, 10, 60, 9) == describe(0, 0, None, None, 0) == "Waits for new documents: 3 make a build due."
    nothing = BuildProgress(9, 0, 1.0, 1.0, 0)
    assert describe_wait(BuildPolicy(), nothing, "documents") == "Built on command only."
