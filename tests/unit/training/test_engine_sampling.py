"""Tokens are drawn as often as their probabilities say, and none that has none; each comes with its log-probability. Guesses change neither."""

import pytest
import torch

from services.training.methods.engine_sampling import NONE, draw, draw_after_guesses

ROWS = 40_000
# A model whose next token depends on the last one only: logits (last token, next token).
MODEL = torch.randn(12, 12, generator=torch.Generator().manual_seed(4)) * 2


def test_tokens_are_drawn_by_their_probabilities() -> None:
    expected = torch.tensor([0.0, 0.5, 0.0, 0.3, 0.15, 0.05, 0.0])
    torch.manual_seed(3)
    # A logit may be of any size.
    drawn, likely = draw(expected.log().repeat(ROWS, 1) + 300, torch.rand(ROWS))
    counts = torch.bincount(drawn, minlength=len(expected))
    assert counts[expected == 0].sum() == 0
    # Four standard deviations of a share.
    assert counts / ROWS == pytest.approx(expected, abs=4 * 0.5 / ROWS**0.5)
    assert torch.allclose(likely.exp(), expected[drawn], atol=1e-4)


def test_row_draws_with_its_own_generator_whatever_the_others_do() -> None:
    logits = torch.randn(3, 500, generator=torch.Generator().manual_seed(1))
    alone, _ = draw_after_guesses(logits[1:2].clone(), [[]], {0: torch.Generator().manual_seed(9)})
    together, _ = draw_after_guesses(logits.clone(), [[]] * 3, {1: torch.Generator().manual_seed(9)})
    assert together[1] == alone[0]


def test_row_that_is_not_finite_draws_a_token_that_exists() -> None:
    drawn, _ = draw(torch.full((2, 6), float("nan")), torch.rand(2))
    assert drawn.tolist() == [5, 5]


@pytest.mark.parametrize("share", [0.0, 1 - 2**-24])
def test_first_and_last_draws_have_a_probability(share: float) -> None:
    probabilities = torch.tensor([[0.0, 0.1, 0.2, 0.7 + 1e-7, 0.0]])
    drawn, _ = draw(probabilities.log(), torch.tensor([share]))
    assert drawn.item() == (1 if share == 0.0 else 3)


def write(length: int, seed: int, guessed: torch.Generator | None) -> tuple[list[int], list[float]]:
    """An answer of the model. At each step up to four tokens are guessed: the likeliest ones, or any."""
    generator, tokens, likelihoods = torch.Generator().manual_seed(seed), [0], []
    while len(tokens) <= length:
        guess: list[int] = []
        if guessed is not None:
            sure, number = torch.rand(1, generator=guessed).item() < 0.6, torch.randint(5, (1,), generator=guessed)
            for _ in range(int(number)):
                last = [tokens[-1], *guess][-1]
                guess.append(
                    int(MODEL[last].argmax()) if sure else int(torch.randint(len(MODEL), (1,), generator=guessed))
                )
        # The first row ends at once; it has its own guesses and generator, and must change nothing.
        other = {0: torch.Generator().manual_seed(length), 1: generator}
        logits = torch.cat([MODEL[[3, 5]], MODEL[[tokens[-1], *guess]]])
        drawn, likely = draw_after_guesses(logits, [[5], guess], other)
        new = [token for token in drawn[1].tolist() if token != NONE]
        tokens += new
        likelihoods += likely[1, : len(new)].tolist()
    return tokens[1 : length + 1], likelihoods[:length]


def test_guesses_change_no_answer() -> None:
    guessed, steps = torch.Generator().manual_seed(8), []
    for seed in range(20):
        plain, expected = write(60, seed, None)
        tokens, likelihoods = write(60, seed, guessed)
        assert tokens == plain
        assert likelihoods == pytest.approx(expected, abs=1e-5)
        steps.append(plain)
    assert len({tuple(tokens) for tokens in steps}) == 20


def test_row_draws_until_it_draws_another_token_than_the_guessed_one() -> None:
    # One token can follow at each place: the first row draws all that is guessed, the second one another token.
    logits = torch.full((6, 4), -torch.inf)
    logits[0, 1] = logits[1, 2] = logits[2, 3] = logits[3, 1] = logits[4, 2] = logits[5, 0] = 0.0
    drawn, likely = draw_after_guesses(logits, [[1, 2], [3], []], {})
    assert drawn.tolist() == [[1, 2, 3], [1, NONE, NONE], [0, NONE, NONE]]
    assert likely.tolist() == [[0.0] * 3] * 3
