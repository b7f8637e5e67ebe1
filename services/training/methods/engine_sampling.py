"""Drawing the next tokens of each row. Imports torch only."""

from collections.abc import Mapping, Sequence

import torch

# In the place of a token that was not drawn. vLLM skips it.
NONE = -1


def draw(logits: torch.Tensor, shares: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A token (rows,) from each row of logits (rows, tokens), which are overwritten, and its log-probability (rows,).

    By inverse transform sampling, with shares (rows,) from 0 to below 1: no token has a probability of 0. From a row that is not finite it
    is the last token. vLLM adds noise to every token instead, and computes the log-probabilities of all of them.
    """
    weights = logits.sub_(logits.amax(dim=-1, keepdim=True)).exp_()
    cumulative = weights.cumsum(dim=-1)
    total = cumulative[:, -1:]
    # Below the total also where the product is rounded up to it.
    points = torch.minimum(shares[:, None] * total, total.nextafter(torch.zeros_like(total)))
    drawn = torch.searchsorted(cumulative, points, right=True).clamp_(max=cumulative.shape[1] - 1)
    return drawn.squeeze(-1), (weights.gather(-1, drawn) / total).log_().squeeze(-1)


def draw_after_guesses(
    logits: torch.Tensor, guesses: Sequence[Sequence[int]], generators: Mapping[int, torch.Generator]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens that each row draws (rows, longest guess + 1), and their log-probabilities of the same shape.

    logits (guessed tokens + rows, tokens) are those of each row after none of its guessed tokens, after the first, and so on; they are
    overwritten. A row draws until it draws another token than the guessed one, or, after all of them, once more; the rest is NONE. So it
    gets the tokens that it would get without guesses: it draws with its own generator, if it has one, which goes on from the last of them.
    """
    counts = [len(guess) + 1 for guess in guesses]
    before = {row: generators[row].get_state() for row, guess in enumerate(guesses) if guess and row in generators}
    shares = torch.cat([torch.rand(count, generator=generators.get(row)) for row, count in enumerate(counts)])
    drawn, likely = draw(logits, shares)
    texts = [part.tolist() for part in drawn.split(counts)]
    used = [
        1 + next((place for place, token in enumerate(guess) if text[place] != token), len(guess))
        for text, guess in zip(texts, guesses, strict=True)
    ]
    for row, state in before.items():
        if used[row] < counts[row]:
            generators[row].set_state(state)
            torch.rand(used[row], generator=generators[row])
    ends, places = torch.tensor(counts).cumsum(0), torch.arange(max(counts))
    kept = places < torch.tensor(used)[:, None]
    found = (ends - torch.tensor(counts))[:, None] + places.where(kept, 0)
    return drawn[found].where(kept, NONE), likely[found].where(kept, 0.0)
