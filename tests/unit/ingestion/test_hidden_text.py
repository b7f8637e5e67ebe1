"""Metadata, comments, deleted text and pictures' descriptions of a document do not reach its text; split runs are joined."""

import io
import zipfile

import pytest
from docx import Document

from services.ingestion.domain import File
from services.ingestion.formats.read import read

W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
BODY = (
    "<w:p><w:r><w:t>The claim of Ngozi Oka</w:t></w:r><w:r><w:rPr><w:b/></w:rPr><w:t>for stands.</w:t></w:r></w:p>"
    '<w:p><w:del w:id="1" w:author="Deleting Dora"><w:r><w:delText>Removed Roderick</w:delText></w:r></w:del>'
    '<w:ins w:id="2" w:author="Inserting Ivan"><w:r><w:t>Kept Katharina</w:t></w:r></w:ins></w:p>'
)
PICTURE = (
    '<w:p><w:r><w:drawing><wp:inline xmlns:wp="http://schemas.openxmlformats.org/drawingml/2006/wordprocessingDrawing">'
    '<wp:docPr id="1" name="Picture 1" descr="Portrait of Pictured Petra"/></wp:inline></w:drawing></w:r></w:p>'
)


def make_docx() -> bytes:
    document, plain, changed = Document(), io.BytesIO(), io.BytesIO()
    document.add_paragraph("PLACE")
    properties = document.core_properties
    properties.author, properties.comments, properties.last_modified_by = (
        "Author Agatha",
        "Noted by Norbert",
        "Editor Edda",
    )
    paragraph = document.add_paragraph("It holds.")
    document.add_comment(paragraph.runs, "Ask Commenting Cora", author="Reviewer Rasmus")
    document.save(plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(changed, "w") as target:
        for entry in source.namelist():
            data = source.read(entry)
            if entry == "word/document.xml":
                data = data.replace(b"<w:p><w:r><w:t>PLACE</w:t></w:r></w:p>", (BODY + PICTURE).encode())
                assert b"Roderick" in data
            target.writestr(entry, data)
    return changed.getvalue()


@pytest.fixture(scope="module")
def text() -> str:
    return read(File(make_docx(), "claim.docx")).text


@pytest.mark.parametrize("name", ["Agatha", "Norbert", "Edda", "Cora", "Rasmus", "Roderick", "Dora", "Ivan"])
def test_metadata_comments_and_deleted_text_are_dropped(text: str, name: str) -> None:
    assert name not in text


def test_inserted_text_and_words_in_two_runs_are_kept_whole(text: str) -> None:
    assert "Kept Katharina" in text
    assert "Ngozi Okafor" in text.replace("*", "")


def test_a_pictures_description_is_dropped(text: str) -> None:
    assert "Petra" not in text
