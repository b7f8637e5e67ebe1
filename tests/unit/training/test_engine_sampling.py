"""Tokens are drawn as often as their probabilities say, and none that has none; each comes with its log-probability."""

import pytest
import torch

from services.training.methods.engine_sampling import draw

ROWS = 40_000


def test_tokens_are_drawn_by_their_probabilities() -> None:
    expected = torch.tensor([0.0, 0.5, 0.0, 0.3, 0.15, 0.05, 0.0])
    torch.manual_seed(3)
    # A logit may be of any size.
    drawn, likely = draw(expected.log().repeat(ROWS, 1) + 300, {})
    counts = torch.bincount(drawn, minlength=len(expected))
    assert counts[expected == 0].sum() == 0
    # Four standard deviations of a share.
    assert counts / ROWS == pytest.approx(expected, abs=4 * 0.5 / ROWS**0.5)
    assert torch.allclose(likely.squeeze(-1).exp(), expected[drawn], atol=1e-4)


def test_row_draws_with_its_own_generator_whatever_the_others_do() -> None:
    logits = torch.randn(3, 500, generator=torch.Generator().manual_seed(1))
    alone, _ = draw(logits[1:2].clone(), {0: torch.Generator().manual_seed(9)})
    together, _ = draw(logits.clone(), {1: torch.Generator().manual_seed(9)})
    assert together[1] == alone[0]


def test_row_that_is_not_finite_draws_a_token_that_exists() -> None:
    drawn, _ = draw(torch.full((2, 6), float("nan")), {})
    assert drawn.tolist() == [5, 5]


@pytest.mark.parametrize("share", [0.0, 1 - 2**-24])
def test_first_and_last_draws_have_a_probability(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda *size, **_: torch.full(size, share))
    probabilities = torch.tensor([[0.0, 0.1, 0.2, 0.7 + 1e-7, 0.0]])
    drawn, _ = draw(probabilities.log(), {})
    assert drawn.item() == (1 if share == 0.0 else 3)
