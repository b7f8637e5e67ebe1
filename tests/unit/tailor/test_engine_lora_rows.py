"""Adding adapters to a step, compared with one row at a time."""

import pytest
import torch

from tailor.engine.lora_rows import add_each, add_grouped, plan

SLOTS, RANK, INNER, WIDTH = 4, 3, 6, 5


def expected(slots: list[int], y: torch.Tensor, x: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    rows = [y[n] if s < 0 else y[n] + 2.0 * b[s, 0] @ (a[s, 0] @ x[n]) for n, s in enumerate(slots)]
    return torch.stack(rows)


@pytest.mark.parametrize(
    ("slots", "expected_add"),
    [
        ([2, 2, 2], add_grouped),
        ([1, -1, 1], add_grouped),
        ([-1, -1], add_grouped),
        ([0, 1, 2, 3], add_each),
        ([3, -1, 0, 3, -1], add_each),
        ([0] * 8 + [3] * 8, add_grouped),
        ([0] * 8 + [-1] + [3] * 7, add_each),
    ],
)
def test_every_row_gets_its_own_adapter_and_rows_of_the_base_get_none(slots: list[int], expected_add: object) -> None:
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(len(slots), INNER, generator=draw)
    a = torch.randn(SLOTS, 1, RANK, INNER, generator=draw)
    b = torch.randn(SLOTS, 1, WIDTH, RANK, generator=draw)
    whole = torch.randn(len(slots), WIDTH + 2, generator=draw)
    before = whole.clone()
    add = plan(torch.tensor(slots))
    assert add.func is expected_add  # type: ignore[attr-defined]
    # A slice of a packed layer's output, as vLLM has it.
    add(whole[:, 1 : WIDTH + 1], x, a, b, 2.0)
    torch.testing.assert_close(whole[:, 1 : WIDTH + 1], expected(slots, before[:, 1 : WIDTH + 1], x, a, b))
    assert torch.equal(whole[:, [0, -1]], before[:, [0, -1]])
