"""Reads the seeds of a synthesis: passages of documents, and examples."""

from collections.abc import Iterator
from dataclasses import dataclass

from services.synthetic.datasets import read_text
from services.synthetic.domain import Document, Passage, Specialist
from services.synthetic.synthesis.domain import SynthesisSpec
from services.synthetic.synthesis.plan import Seed
from services.synthetic.synthesis.ports import SeedDocuments, SplitPassages
from tailor.storage.protocol import ObjectStore
from tailor.values import Span

# Passages of fewer words say too little to ask about.
MIN_PASSAGE_WORDS = 20


@dataclass(frozen=True)
class SeedReader:
    """Reads seeds from the corpus."""

    documents: SeedDocuments
    store: ObjectStore
    split: SplitPassages

    def read(self, spec: SynthesisSpec, specialist: Specialist) -> list[Seed]:
        """All seeds that still exist and are not held out. Blocks."""
        examples = [
            Seed(f"example:{number}", example.answer, example.prompt, example.document_id)
            for number, example in enumerate(spec.examples, start=1)
            if example.prompt
        ]
        held_out = self.documents.held_out(specialist, spec.document_ids)
        documents = [
            document
            for document in self.documents.find(specialist, spec.document_ids)
            if document.document_id not in held_out
        ]
        return examples + [seed for document in documents for seed in self._passages(document)]

    def _passages(self, document: Document) -> Iterator[Seed]:
        text = read_text(self.store, document)
        if text is None:
            return
        for passage in self.split(document, text):
            if len(passage.text.split()) >= MIN_PASSAGE_WORDS:
                yield _to_seed(document, passage)


def _to_seed(document: Document, passage: Passage) -> Seed:
    return Seed(
        key=f"{document.document_id}:{passage.start}-{passage.end}",
        text=passage.text.strip(),
        document_id=document.document_id,
        language=document.language,
        heading=passage.heading,
        place=(passage.start, passage.end),
        spans=_find_spans(document.spans, passage),
    )


def _find_spans(spans: tuple[Span, ...], passage: Passage) -> tuple[Span, ...]:
    return tuple(span for span in spans if span.start < passage.end and passage.start < span.end)
