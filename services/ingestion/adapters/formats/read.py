"""One file to clean Markdown, in this process; called by the parsing worker alone."""

from services.ingestion.adapters.formats.detect import detect
from services.ingestion.domain import File, Parsed


def read(file: File) -> Parsed:
    """The file's text; raises Rejected."""
    match detect(file):
        case "md":
            from services.ingestion.adapters.formats.text import parse_markdown as parse
        case "txt":
            from services.ingestion.adapters.formats.text import parse_text as parse
        case "json":
            from services.ingestion.adapters.formats.text import parse_example as parse
        case "html":
            from services.ingestion.adapters.formats.office import parse_html as parse
        case "docx":
            from services.ingestion.adapters.formats.office import parse_docx as parse
        case "eml":
            from services.ingestion.adapters.formats.mail import parse_mail as parse
        case _:
            from services.ingestion.adapters.formats.pdf import parse_pdf as parse
    return parse(file)
