"""Code and settings in a text: fenced, indented and inline code as Markdown has it, lines of a shell, runs of settings.

In code only values under labels of people, accounts and secrets are personal, and values that a checksum or their form shows.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator

Place = tuple[int, int]

FENCE = re.compile(r"(?m)^[ \t>]{0,80}(?P<mark>`{3,}|~{3,})(?P<name>[^`\n]*)\n?")
INLINE = re.compile(r"(?<!`)(?P<mark>`{1,2})(?!`)(?P<body>[^`\n]{1,200})(?P=mark)(?!`)")
LINE = re.compile(r"[^\n]*\n|[^\n]+\Z")
INDENT = re.compile(r"(?: {4}|\t| {1,3}\t)[ \t]*(?=\S)")
# `$ git status`, `C:\> dir`, `psql=# SELECT`
SHELL = re.compile(r"[ \t>|]*(?:[\w.@~:\[\]/-]{0,40}[$%] |[A-Za-z]:\\[^>\n]*> |[a-z]\w*[=-][#>] )\S")
SETTING = re.compile(r"[ \t]*[\w.\"'/\[\]-]{1,60}[ \t]*[:+?]?=[ \t]*\S|[ \t]*\[[\w. :-]{1,60}\][ \t]*$")
# Signs of a line of code; sentences, addresses and signatures do not have them.
SIGN = re.compile(
    r"[{}\\|^~]|[;{(]\s*$|[=<>!+*-]=|=>|->|::|&&|\w\(|\)\(|[$%@]\w|<[/!]?\w[^>\n]{0,80}>|^\s*(?://|/\*|\*/|#\s?\w|#!|--|\"\"\"|%)|(?<!\S)--?[a-zA-Z]"
    r"|(?<!\w)[.~]{0,2}/\w[\w.-]*/|\w_\w|\b[a-z]+[A-Z]\w|\b\w+\.[a-z]\w+\b|[\w\]\"'] ?=[ \t]?[\w\"'(\[$]|\b0x[\da-f]|\b\d+(?:\.\d+){2,}\b",
    re.MULTILINE,
)
# Half the lines of a block that is code by its place only look like code.
LEAST_CODE = 0.5
# A fence is a sign by itself.
LEAST_FENCED = 0.1
LEAST_SETTINGS = 2
# How far before a value its label may stand.
LABEL_REACH = 120

PEOPLE = (
    r"authors?|maintainers?|committers?|owners?|user(?:[ _.-]?(?:name|id))?s?|login|account|contact|reviewers?|assignees?"
    r"|creator|editor|manager|employees?|customers?|clients?|patients?|tenants?|persons?|people|sender|recipient|signer|holder"
    r"|(?:full|real|display|first|last|given|family|sur|fore)[ _-]?name|e?mail|phone|tel|mobile|address|street|from|to|cc|bcc|by|dear"
    r"|copyright|\(c\)|©|(?:signed-off|reported|reviewed|acked|tested|suggested)-by|gecos|cn|vorname|nachname|autor|auteur"
)
SECRETS = (
    r"pass(?:wor[dt]|wd|phrase|code)?|pwd|secret|token|api[ _-]?key|access[ _-]?key|private[ _-]?key"
    r"|credentials?|pin|iban|card|account(?:[ _-]?(?:no|number|id))?"
)
LABELLED = re.compile(
    rf"(?i)(?:^|[^a-z])(?:{PEOPLE}|{SECRETS})[\"'\])]{{0,2}}[ \t]*(?:(?:=>|:=|[:=])[ \t]*|[ \t])"
    rf"(?:(?:\d{{4}}[\d, -]*|©|\(c\))[ \t]*)?[\"'(<\[]{{0,2}}[^\n;:={{}}]{{0,60}}$"
)


def code_places(text: str) -> list[Place]:
    """The stretches [start, end) of code, in order. They may overlap. The time is linear in the text."""
    places = [(start, end) for start, end in _fenced(text) if looks_like_code(text[start:end], LEAST_FENCED)]
    places += [match.span("body") for match in INLINE.finditer(text)]
    places += _blocks(text)
    return sorted(places)


def _fenced(text: str) -> Iterator[Place]:
    """The text between two fences of one kind, of which the second has no name. A fence that is never closed is ignored."""
    fences = list(FENCE.finditer(text))
    closing: dict[str, list[int]] = {}
    for place, fence in enumerate(fences):
        if not fence["name"].strip():
            closing.setdefault(fence["mark"], []).append(place)
    place = 0
    while place < len(fences):
        ends = closing.get(fences[place]["mark"], [])
        after = bisect_right(ends, place)
        if after < len(ends):
            yield fences[place].end(), fences[ends[after]].start()
            place = ends[after]
        place += 1


def looks_like_code(block: str, least: float = LEAST_CODE) -> bool:
    """True if enough of a block's lines have signs of code."""
    lines = [line for line in block.splitlines() if line.strip()]
    return bool(lines) and sum(map(_is_code, lines)) >= least * len(lines)


def _is_code(line: str) -> bool:
    return SIGN.search(line) is not None or SHELL.match(line) is not None


def is_labelled(text: str, start: int) -> bool:
    """True if a label of people, accounts or secrets stands before a place, on its line."""
    line = text.rfind("\n", 0, start) + 1
    return LABELLED.search(text[max(line, start - LABEL_REACH) : start]) is not None


def _blocks(text: str) -> Iterator[Place]:
    """Indented blocks, runs of settings, and lines of a shell."""
    kind, start, end = "", 0, 0
    for line in LINE.finditer(text):
        row = line[0]
        if not row.strip():
            if kind == "settings":
                yield from _block(text, kind, start, end)
                kind = ""
            continue
        found = (
            "shell"
            if SHELL.match(row)
            else "indented"
            if INDENT.match(row)
            else "settings"
            if SETTING.match(row)
            else ""
        )
        if found != kind:
            yield from _block(text, kind, start, end)
            kind, start = found, line.start()
        end = line.end()
    yield from _block(text, kind, start, end)


def _block(text: str, kind: str, start: int, end: int) -> Iterator[Place]:
    block = text[start:end]
    is_code = kind == "shell" or (kind == "settings" and block.count("\n") >= LEAST_SETTINGS)
    if is_code or (kind == "indented" and looks_like_code(block)):
        yield start, end
