"""Rows of an engine's step that compute the same."""

from services.training.methods.engine_rows import Row, find_repeats

PROMPT = (5, 6, 7)


def row(
    first: int,
    tokens: tuple[int, ...] = PROMPT,
    before: int = 0,
    blocks: tuple[int, ...] = (),
    written: tuple[int, ...] = (),
) -> Row:
    return Row(first, tokens, before, blocks, written)


def test_rows_with_the_same_tokens_after_the_same_blocks_repeat_the_first_of_them() -> None:
    rows = [
        row(0),
        row(3),
        row(6, tokens=(5, 6)),
        row(8, before=32, blocks=(4,)),
        row(11, before=32, blocks=(4,)),
        row(14),
    ]
    assert find_repeats(rows) == {1: 0, 4: 3, 5: 0}
    assert [item.end for item in rows] == [3, 6, 8, 11, 14, 17]


def test_rows_after_other_tokens_do_not_repeat_each_other() -> None:
    """An answer's own last block makes it different, also where its newest token is the same."""
    before = [row(0, (9,), 40, (4, 5)), row(1, (9,), 40, (4, 6)), row(2, (9,), 41, (4, 5))]
    assert find_repeats(before) == {}
    assert find_repeats([]) == {}


def test_a_row_whose_block_another_one_reads_in_the_same_step_is_computed() -> None:
    rows = [row(0, written=(1,)), row(3, written=(2,)), row(6, written=(3,)), row(9, (8,), 3, (2,), (4,))]
    assert find_repeats(rows) == {2: 0}
