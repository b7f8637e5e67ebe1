"""The passages of a document: what is compared, asked about and taught as one."""

from services.synthetic.domain import Document, Passage, Text
from services.synthetic.rows.pieces import join_pieces
from services.synthetic.rows.sections import Section, read_source


def passages(document: Document, text: Text) -> tuple[Passage, ...]:
    """The passages in order: sections by ingestion's spans, else paragraphs merged to about 200 words.

    They cover everything that is not blank. A passage's text is read without hard line breaks and without its own heading, unless it
    consists of nothing else.
    """
    return tuple(map(_passage, read_source(document, text).sections))


def _passage(section: Section) -> Passage:
    return Passage(section.start, section.end, join_pieces(section.body or section.pieces), section.headings)
