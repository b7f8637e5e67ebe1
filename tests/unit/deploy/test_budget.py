import tomllib

from deploy.budget import BUDGET, COUNTS, find_excess, lower

TEXT = "# Why.\n[most]\ntables = 1_000\n# Decision 0099.\nrpcs = 20\n"


def test_a_number_above_its_budget_is_a_problem() -> None:
    assert find_excess({"tables": 10, "rpcs": 20}, {"tables": 10, "rpcs": 20}) == []
    (problem,) = find_excess({"tables": 10, "rpcs": 20}, {"tables": 13, "rpcs": 19})
    assert problem.startswith("tables is above deploy/budget.toml by 3")


def test_only_numbers_that_fell_are_written_and_comments_stay() -> None:
    assert lower(TEXT, {"tables": 900, "rpcs": 21}) == "# Why.\n[most]\ntables = 900\n# Decision 0099.\nrpcs = 20\n"


def test_lines_fall_in_steps() -> None:
    assert lower("[most]\ntest_lines = 2_000\n", {"test_lines": 1_201}) == "[most]\ntest_lines = 1_500\n"


def test_every_number_has_a_budget_and_is_found_in_the_code() -> None:
    assert list(tomllib.loads(BUDGET.read_text(encoding="utf-8"))["most"]) == list(COUNTS)
    assert all(count() > 0 for count in COUNTS.values())
