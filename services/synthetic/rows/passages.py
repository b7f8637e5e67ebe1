"""The passages of a document: what is compared, asked about and taught as one."""

from collections.abc import Iterator

from services.synthetic.domain import Document, Passage, Text
from services.synthetic.rows.parts import split_long
from services.synthetic.rows.pieces import TextPiece, join_pieces
from services.synthetic.rows.sections import Section, read_source


def passages(document: Document, text: Text) -> tuple[Passage, ...]:
    """The passages in order: sections by ingestion's spans, else paragraphs merged to about 200 words.

    They cover everything that is not blank. A passage's text is read without hard line breaks and without its own heading, unless it
    consists of nothing else.
    """
    return tuple(map(_passage, read_source(document, text).sections))


def short_passages(document: Document, text: Text, max_characters: int) -> tuple[Passage, ...]:
    """The passages, of which longer ones are split at blocks, then at sentences, then at words. Nothing is cut off."""
    sections = read_source(document, text).sections
    return tuple(passage for section in sections for passage in _split(section, max_characters))


def _split(section: Section, max_characters: int) -> Iterator[Passage]:
    whole = _passage(section)
    if len(whole.text) <= max_characters:
        yield whole
        return
    start = section.start
    group: list[TextPiece] = []
    for piece in split_long(section.body or section.pieces, max_characters):
        if group and len(join_pieces([*group, piece])) > max_characters:
            yield Passage(start, group[-1].end, join_pieces(group), section.headings)
            start, group = piece.start, []
        group.append(piece)
    yield Passage(start, group[-1].end, join_pieces(group), section.headings)


def _passage(section: Section) -> Passage:
    return Passage(section.start, section.end, join_pieces(section.body or section.pieces), section.headings)
