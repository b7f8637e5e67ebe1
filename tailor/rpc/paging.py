"""Page sizes and page tokens of calls that list."""

from tailor.errors import InvalidArgument, Reason

# Those of PostgreSQL's bigint, less one.
MAX_TOKEN_DIGITS = 18


def page_size(requested: int, default: int, maximum: int) -> int:
    """Entries per page. Raises InvalidArgument (INVALID_PAGE_SIZE) for a negative size."""
    if requested < 0:
        raise InvalidArgument(
            Reason.INVALID_PAGE_SIZE, "The page size is negative.", field_violations={"page_size": "must be 0 or more"}
        )
    return min(requested or default, maximum)


def position(token: str) -> int | None:
    """The position that a page token names; None for the first page. Raises InvalidArgument (INVALID_PAGE_TOKEN)."""
    if not token:
        return None
    if not (token.isascii() and token.isdigit()) or len(token) > MAX_TOKEN_DIGITS:
        raise invalid_token()
    return int(token)


def invalid_token() -> InvalidArgument:
    """The error for a page token that no answer had."""
    return InvalidArgument(
        Reason.INVALID_PAGE_TOKEN,
        "The page token is invalid. Start again with the first page.",
        field_violations={"page_token": "must be the `next_page_token` of the previous page"},
    )


def offset(token: str) -> int:
    """How many entries precede the page that a token names. Raises InvalidArgument (INVALID_PAGE_TOKEN)."""
    return position(token) or 0
