"""Parses a file to clean Markdown in this process. Only the sandboxed worker calls it with files from outside."""

import importlib
from collections.abc import Callable
from dataclasses import replace

from services.ingestion.domain import File, ParsedText
from services.ingestion.formats.budget import Budget
from services.ingestion.formats.detect import detect

# Module and function of each format's parser. A module is imported when it is first needed.
PARSERS = {
    "md": ("text", "parse_markdown"),
    "txt": ("text", "parse_text"),
    "json": ("data", "parse_json"),
    "csv": ("table", "parse_csv"),
    "html": ("office", "parse_html"),
    "docx": ("office", "parse_docx"),
    "pptx": ("slides", "parse_pptx"),
    "xlsx": ("sheets", "parse_xlsx"),
    "eml": ("mail", "parse_mail"),
    "msg": ("outlook", "parse_msg"),
    "pdf": ("pdf", "parse_pdf"),
}


def read(file: File, budget: Budget | None = None) -> ParsedText:
    """Parse a file. Raises Rejected. An attachment uses the budget of its mail."""
    left = budget or Budget()
    parsed = load_parser(detect(file, left))(file, left)
    return replace(parsed, removed=dict(left.removed))


def load_parser(format: str) -> Callable[[File, Budget], ParsedText]:
    """Import the parser of a format."""
    module, name = PARSERS[format]
    parse: Callable[[File, Budget], ParsedText] = getattr(
        importlib.import_module(f"services.ingestion.formats.{module}"), name
    )
    return parse
