"""Pages of lists: their size and where they begin."""

from tailor.errors import InvalidArgument, Reason


def page_size(asked: int, default: int, most: int) -> int:
    """Entries of a page; InvalidArgument for fewer than none."""
    if asked < 0:
        raise InvalidArgument(
            Reason.INVALID_PAGE_SIZE, "A page size is 0 or more.", field_violations={"page_size": "0 or more."}
        )
    return min(asked or default, most)


def position(token: str) -> int | None:
    """Where a page begins; None at the beginning, InvalidArgument for a token that no page gave."""
    if not token:
        return None
    if not token.isdecimal():
        raise InvalidArgument(
            Reason.INVALID_PAGE_TOKEN,
            "Send the token of the page before.",
            field_violations={"page_token": "From the last page."},
        )
    return int(token)
