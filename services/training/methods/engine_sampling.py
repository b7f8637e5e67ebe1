"""Drawing the next token of each row. Imports torch only."""

from collections.abc import Mapping

import torch


def draw(logits: torch.Tensor, generators: Mapping[int, torch.Generator]) -> tuple[torch.Tensor, torch.Tensor]:
    """A token (rows,) from each row of logits (rows, tokens), which are overwritten, and its log-probability (rows, 1).

    By inverse transform sampling: no token has a probability of 0. A row draws with its own generator, if it has one; from a row that is
    not finite it draws the last token. vLLM adds noise to every token instead, and computes the log-probabilities of all of them.
    """
    logits -= logits.amax(dim=-1, keepdim=True)
    cumulative = logits.exp().cumsum_(dim=-1)
    total = cumulative[:, -1:]
    shares = torch.cat([torch.rand(1, 1, generator=generators.get(row)) for row in range(len(cumulative))])
    # Below the total also where the product is rounded up to it.
    points = torch.minimum(shares * total, total.nextafter(torch.zeros_like(total)))
    drawn = torch.searchsorted(cumulative, points, right=True).clamp_(max=cumulative.shape[1] - 1)
    return drawn.squeeze(-1), logits.gather(-1, drawn) - total.log()
