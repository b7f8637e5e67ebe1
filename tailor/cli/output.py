"""Output of commands: a layout for people, or one JSON or YAML document on standard output."""

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

import yaml
from google.protobuf.message import Message
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from tailor.cli.messages import to_dict
from tailor.cli.whole_words import SHORT_DIGEST, DigestText, WordTable
from tailor.columns import Digest
from tailor.errors import TailorError

# Names, comments, publishers' ids and models' answers could write to the clipboard or hide lines with them.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
REPLACEMENT = "\ufffd"


class OutputFormat(Enum):
    """How a command writes its result."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


class PlainConsole(Console):
    """A console that shows control characters within texts, instead of sending them to the terminal. Its own styles still work.

    Nothing is broken into lines without a terminal, and nothing is cut off with one: what is printed can be copied and searched.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.soft_wrap = not self.is_terminal

    def print(self, *objects: Any, crop: bool = False, **options: Any) -> None:
        """Print with rich's markup, without cutting off what is wider than the terminal."""
        super().print(*objects, crop=crop, **options)

    def show(self, *parts: Any) -> None:
        """Print parts of a result, one below the other: texts as they are, which the terminal may break into lines, and renderables.

        A part may be an iterator of parts, or None.
        """
        for part in parts:
            if isinstance(part, Iterator | list | tuple):
                self.show(*part)
            elif isinstance(part, str | Text):
                self.print(part, markup=False, highlight=False, soft_wrap=True)
            elif part is not None:
                self.print(part)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The parts of what is printed."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(plain(segment.text), segment.style)


def plain(text: str) -> str:
    """The text with a replacement for each control character but line ends and tabs."""
    return CONTROL.sub(REPLACEMENT, text)


class Output:
    """Where a command's result goes. Progress always goes to standard error, through `notes`."""

    def __init__(self, form: OutputFormat = OutputFormat.TABLE) -> None:
        self.notes = PlainConsole(stderr=True)
        self._form = form
        self._console = PlainConsole(highlight=False)

    @property
    def is_terminal(self) -> bool:
        """True if people read the result as it is written."""
        return self._console.is_terminal

    def emit(self, document: Any, *parts: Any) -> None:
        """Write the result, a message or plain data with messages in it, or its parts for people. Call it once."""
        if self._form is OutputFormat.TABLE:
            self._console.show(*parts)
        elif self._form is OutputFormat.JSON:
            sys.stdout.write(json.dumps(_to_plain(document), ensure_ascii=False, indent=2) + "\n")
        else:
            sys.stdout.write(_to_yaml(_to_plain(document)))

    def note(self, *parts: Any) -> None:
        """Write parts for people to standard error."""
        self.notes.show(*parts)

    def emit_each(self, document: Any) -> None:
        """Write one of many results: a line of JSON, or a YAML document."""
        is_yaml = self._form is OutputFormat.YAML
        sys.stdout.write(f"---\n{_to_yaml(document)}" if is_yaml else json.dumps(document, ensure_ascii=False) + "\n")
        sys.stdout.flush()

    def write(self, text: str) -> None:
        """Show a piece of a result that is still being generated. A JSON or YAML document contains every piece."""
        if self._form is OutputFormat.TABLE:
            self._console.out(plain(text), end="", highlight=False)


def _to_plain(document: Any) -> Any:
    if isinstance(document, Message):
        return to_dict(document)
    if isinstance(document, Mapping):
        return {name: _to_plain(value) for name, value in document.items()}
    return (
        [_to_plain(value) for value in document]
        if isinstance(document, Sequence) and not isinstance(document, str)
        else document
    )


def _to_yaml(document: Any) -> str:
    # Through JSON, because subclasses of texts and numbers are unknown to YAML.
    return str(yaml.safe_dump(json.loads(json.dumps(document)), allow_unicode=True, sort_keys=False))


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> WordTable:
    """A table that never breaks a word; `none yet` if there are no rows."""
    result = WordTable(
        title=Text(title, style="bold", no_wrap=True, overflow="ignore"),
        title_justify="left",
        header_style="dim",
        box=None,
        pad_edge=False,
    )
    for column in columns:
        result.add_column(column)
    for row in rows:
        result.add_row(*map(_to_text, row))
    if not result.row_count:
        result.add_row("none yet")
    return result


def _to_text(cell: object) -> Text:
    if isinstance(cell, Text):
        return cell
    return DigestText(cell) if isinstance(cell, Digest) else Text(plain(str(cell)))


def short(digest: str) -> str:
    """The first digits of a digest, or a dash if it is empty."""
    return digest[:SHORT_DIGEST] or "-"


def bold(name: str, rest: str = "") -> Text:
    """A line that begins with a name in bold."""
    return Text.assemble((name, "bold"), rest)


def print_error(error: TailorError) -> None:
    """Write the error to standard error: one line, and one more for each invalid field."""
    lines = [f"error: {error.reason}: {error.message}"]
    lines += [f"  {name}: {text}" for name, text in error.field_violations.items()]
    sys.stderr.write(plain("\n".join(lines)) + "\n")
