"""One file to clean Markdown, in this process; called by the parsing worker alone."""

import importlib
from collections.abc import Callable

from services.ingestion.adapters.formats.budget import Budget
from services.ingestion.adapters.formats.detect import detect
from services.ingestion.domain import File, Parsed

# Where each format's parser is; imported when first needed.
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


def read(file: File, budget: Budget | None = None) -> Parsed:
    """The file's text; raises Rejected. An attachment is read within the budget of its mail."""
    left = budget or Budget()
    return parser(detect(file, left))(file, left)


def parser(format: str) -> Callable[[File, Budget], Parsed]:
    """The parser of a format."""
    module, name = PARSERS[format]
    parse: Callable[[File, Budget], Parsed] = getattr(
        importlib.import_module(f"services.ingestion.adapters.formats.{module}"), name
    )
    return parse
