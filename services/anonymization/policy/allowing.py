"""Adding terms to `[allow]` of a policy without changing the rest of its text."""

import json
import re
import tomllib
from collections.abc import Sequence

from tailor.errors import InvalidArgument, Reason

EXTENDS_DEFAULT = b'extends = "default"\n'
TABLE = re.compile(r"^[ \t]*\[allow\][ \t]*(?:#.*)?$", re.MULTILINE)
NEXT_TABLE = re.compile(r"^[ \t]*\[", re.MULTILINE)
TERMS = re.compile(r"^[ \t]*terms[ \t]*=[ \t]*\[", re.MULTILINE)


def allow_terms(source: bytes, terms: Sequence[str]) -> bytes:
    """The policy in TOML with further terms in `[allow]`; the same if it has them all. Comments stay.

    Raises InvalidArgument (INVALID_POLICY) if the file is written in a way that cannot be extended.
    """
    before = tomllib.loads(source.decode())
    table = before.get("allow", {})
    new = [term for term in terms if term not in table.get("terms", ())]
    if not new:
        return source
    text = _insert(source.decode(), new)
    expected = before | {"allow": table | {"terms": [*new, *table.get("terms", ())]}}
    if not _reads_as(text, expected):
        raise InvalidArgument(
            Reason.INVALID_POLICY,
            "The policy was not changed.",
            field_violations={"allow.terms": "must be a list under a line `[allow]`; install the policy in this form"},
        )
    return text.encode()


def _insert(text: str, terms: Sequence[str]) -> str:
    # TOML reads the escapes of JSON.
    entries = ", ".join(json.dumps(term, ensure_ascii=False) for term in terms)
    header = TABLE.search(text)
    if header is None:
        return f"{text.rstrip()}\n\n[allow]\nterms = [{entries}]\n"
    end = NEXT_TABLE.search(text, header.end())
    known = TERMS.search(text, header.end(), end.start() if end else len(text))
    if known is None:
        return f"{text[: header.end()]}\nterms = [{entries}]{text[header.end() :]}"
    return f"{text[: known.end()]}{entries}, {text[known.end() :]}"


def _reads_as(text: str, expected: object) -> bool:
    try:
        return tomllib.loads(text) == expected
    except tomllib.TOMLDecodeError:
        return False
