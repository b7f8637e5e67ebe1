"""A step's rows, each with the adapter of its slot: adding every adapter's part to a layer's output, on CPU."""

from collections.abc import Callable
from functools import partial

import torch

# A slot and the rows of the step that use it; None where all rows do.
Groups = list[tuple[int, torch.Tensor | None]]
# Adds `x A^T B^T * scale` to `y` in place, row by row. Shapes: y (n, out), x (n, in), a (slots, 1, rank, in), b (slots, 1, out, rank).
Add = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, float], None]

# With fewer rows a group, copying each row's matrices costs less than several small products a group: for 16 rows with 16 adapters,
# SmolLM2's 210 products took 16 ms instead of 89, and about as long as those of groups at 128 rows.
ROWS_A_GROUP = 8


def plan(slots: torch.Tensor) -> Add:
    """How a step adds its adapters' parts; rows of slot -1 belong to the base and get nothing."""
    groups = group_by_slot(slots)
    adapted = (slots >= 0).nonzero().flatten()
    if len(groups) < 2 or len(adapted) >= ROWS_A_GROUP * len(groups):
        return partial(add_grouped, groups)
    rows = None if len(adapted) == len(slots) else adapted
    return partial(add_each, slots.index_select(0, adapted), rows)


def group_by_slot(slots: torch.Tensor) -> Groups:
    """The rows of every slot in use."""
    used = [slot for slot in torch.unique(slots).tolist() if slot >= 0]
    if len(used) == 1 and bool((slots == used[0]).all()):
        return [(used[0], None)]
    return [(slot, (slots == slot).nonzero().flatten()) for slot in used]


def add_grouped(  # noqa: PLR0917 - Add's signature behind the first
    groups: Groups, y: torch.Tensor, x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scale: float
) -> None:
    """Multiply each group once."""
    for slot, rows in groups:
        low = torch.mm(x if rows is None else x.index_select(0, rows), a[slot, 0].t())
        if rows is None:
            y.addmm_(low, b[slot, 0].t(), alpha=scale)
        else:
            y.index_add_(0, rows, torch.mm(low, b[slot, 0].t()), alpha=scale)


def add_each(  # noqa: PLR0917 - Add's signature behind the first two
    slots: torch.Tensor,
    rows: torch.Tensor | None,
    y: torch.Tensor,
    x: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    scale: float,
) -> None:
    """Multiply all rows at once, each by a copy of its own slot's matrices; `slots` are those of the rows."""
    picked = x if rows is None else x.index_select(0, rows)
    low = torch.bmm(picked.unsqueeze(1), a[:, 0].index_select(0, slots).transpose(1, 2))
    added = torch.bmm(low, b[:, 0].index_select(0, slots).transpose(1, 2)).squeeze(1)
    if rows is None:
        y.add_(added, alpha=scale)
    else:
        y.index_add_(0, rows, added, alpha=scale)
