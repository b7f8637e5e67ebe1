"""Page sizes, and page tokens that no page gave."""

import pytest

from tailor.errors import InvalidArgument, Reason
from tailor.rpc.paging import offset, page_size, position


@pytest.mark.parametrize("token", ["-1", "1.5", "r:", "1e9", "٣", "²", "9" * 19, "9" * 5_000])
def test_a_made_up_page_token_is_refused(token: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        position(token)
    assert refused.value.reason == Reason.INVALID_PAGE_TOKEN


def test_a_page_token_names_a_position() -> None:
    assert [position(token) for token in ("", "0", "9" * 18)] == [None, 0, 10**18 - 1]
    assert [offset(token) for token in ("", "20")] == [0, 20]


def test_a_page_has_the_size_asked_for_up_to_a_maximum() -> None:
    assert [page_size(size, 50, 200) for size in (0, 7, 2**31 - 1)] == [50, 7, 200]
    with pytest.raises(InvalidArgument) as refused:
        page_size(-1, 50, 200)
    assert refused.value.reason == Reason.INVALID_PAGE_SIZE
