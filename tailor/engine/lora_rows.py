"""Adds LoRA adapters to the output of a layer on CPU. Each row of a step may use the adapter of another slot.

LoRA: Hu et al. 2021. Grouping rows by adapter: Punica, Chen et al. 2023.
"""

from collections.abc import Callable
from functools import partial

import torch

# A slot and the rows of the step that use it; None if all rows do.
Groups = list[tuple[int, torch.Tensor | None]]
# Adds `x A^T B^T * scale` to `y` in place, row by row. Shapes: y (n, out), x (n, in), a (slots, 1, rank, in), b (slots, 1, out, rank).
Add = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, float], None]

# With fewer rows per group, copying each row's matrices costs less than several small products per group: for 16 rows with 16 adapters,
# SmolLM2's 210 products took 16 ms instead of 89 ms, and about as long as grouped products at 128 rows.
ROWS_PER_GROUP = 8


def plan(slots: torch.Tensor) -> Add:
    """Choose how a step adds its adapters. slots (n,): the slot of each row; rows of slot -1 use the base and get nothing."""
    groups = group_by_slot(slots)
    adapted = (slots >= 0).nonzero().flatten()
    if len(groups) < 2 or len(adapted) >= ROWS_PER_GROUP * len(groups):
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
    """Multiply each group once. Shapes as in Add."""
    for slot, rows in groups:
        low = torch.mm(x if rows is None else x.index_select(0, rows), a[slot, 0].t())  # (rows, rank)
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
    """Multiply all rows at once, each by a copy of its slot's matrices. slots (rows,): the slots of the given rows. Shapes as in Add."""
    picked = x if rows is None else x.index_select(0, rows)
    low = torch.bmm(picked.unsqueeze(1), a[:, 0].index_select(0, slots).transpose(1, 2))  # (rows, 1, rank)
    added = torch.bmm(low, b[:, 0].index_select(0, slots).transpose(1, 2)).squeeze(1)  # (rows, out)
    if rows is None:
        y.add_(added, alpha=scale)
    else:
        y.index_add_(0, rows, added, alpha=scale)
