"""Page tokens that no page gave."""

import pytest

from services.registry.paging import position
from tailor.errors import InvalidArgument, Reason


@pytest.mark.parametrize("token", ["-1", "1.5", "r:", "1e9", "9" * 19, "9" * 5_000])
def test_a_made_up_page_token_is_refused(token: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        position(token)
    assert refused.value.reason == Reason.INVALID_PAGE_TOKEN


def test_a_page_token_names_a_position() -> None:
    assert [position(token) for token in ("", "0", "9" * 18)] == [None, 0, 10**18 - 1]
