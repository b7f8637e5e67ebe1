"""The JSON schemas of the topics that publishers write, and one sentence for every mistake in an event.

The sentences become the hint of a rejection, which leaves the raw zone. So they name fields of the schema and positions, and never quote
the event: an unknown field is named by its position, because its name could be personal data.
"""

import difflib
import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from services.ingestion.domain import DRAFT_ID_RULE, MAX_EXTERNAL_ID, SLUG_RULE, DocumentKind, malformed
from tailor.events.topics import load_topics

SUBMITTED = "document.submitted.v1"
EXAMPLES = "example.published.v1"
TESTS = "test.published.v1"
DELIVERABLES = "deliverable.published.v1"
# Who writes documents writes neither train rows nor golden rows: each kind has its own topic, and its own users at Kafka.
KINDS = {
    SUBMITTED: DocumentKind.DOCUMENT,
    EXAMPLES: DocumentKind.EXAMPLE,
    TESTS: DocumentKind.TEST,
    DELIVERABLES: DocumentKind.DELIVERABLE,
}
# The user of Kafka that may write each topic, as the label of its documents.
PUBLISHERS = {topic: load_topics()[topic].producers[0] for topic in KINDS}
OTHER_TOPICS = f"Examples, tests and deliverables are published on {EXAMPLES}, {TESTS} and {DELIVERABLES}."

SLUG = r"^[a-z0-9-]{0,64}$"
MAX_URI = 4096
MAX_MISTAKES = 5
MAX_COMPARED_CHARS = 64
FOR_A_FILE = "To publish a file as it is, add a `document-id` header."


class StrictModel(BaseModel):
    """A model that rejects unknown fields."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class PublishedLabels(StrictModel):
    """Slugs that say where a document belongs. They must not hold personal data."""

    source: str = Field("", pattern=SLUG, description="System that the document came from, such as `sharepoint`.")
    department: str = Field("", pattern=SLUG, description="Department that owns it, such as `risk`.")
    confidentiality: str = Field("", pattern=SLUG, description="Confidentiality class, such as `internal`.")


class KeyInsights(StrictModel):
    """Statements of one sentence each. Figures and dates must agree with an answer's exactly, words only in meaning."""

    findings: list[str] = Field(default_factory=list, description="What was observed or concluded.")
    figures: list[str] = Field(default_factory=list, description="What was measured, with its value.")
    owners: list[str] = Field(default_factory=list, description="Who is responsible, and for what.")
    dates: list[str] = Field(default_factory=list, description="What happens when.")
    recommendations: list[str] = Field(default_factory=list, description="What should be done.")


class PublishedEvent(StrictModel):
    """Common to all kinds: the content is a file (`content_base64` or `uri`), or the fields of CONTENT."""

    CONTENT: ClassVar[tuple[str, ...]]

    document_id: str = Field(
        min_length=1,
        max_length=MAX_EXTERNAL_ID,
        description="The publisher's own id. Publishing the same id again creates a new version.",
    )
    content_base64: str | None = Field(None, description="The bytes of a file, in base64. Send `file_name` with it.")
    uri: str | None = Field(
        None,
        min_length=1,
        max_length=MAX_URI,
        description="Location of a file: `s3://BUCKET/KEY` or `https://HOST/...`. The installation lists the allowed buckets and hosts.",
    )
    sha256: str = Field(
        "", pattern=r"^([0-9a-fA-F]{64})?$", description="With `uri`: SHA-256 of the file. Other bytes are rejected."
    )
    size_bytes: int | None = Field(
        None, ge=0, description="With `uri`: size of the file. A file of another size is rejected."
    )
    file_name: str | None = Field(
        None, max_length=512, description="Name of the file. Its extension determines the format."
    )
    content_type: str | None = Field(
        None, max_length=256, description="Media type of the file, such as `application/pdf`."
    )
    labels: PublishedLabels = PublishedLabels()


class PublishedDocument(PublishedEvent):
    """A document with exactly one content: `text`, `content_base64` or `uri`."""

    CONTENT = ("text",)

    kind: Literal["document"] = Field("document", description="Always a document.")
    text: str | None = Field(None, description="Markdown or plain text.")


class PublishedExample(PublishedEvent):
    """A prompt and the answer that a person gave, as `prompt` and `answer` or as a JSON file that has both."""

    CONTENT = ("prompt", "answer")

    kind: Literal["example"] = Field("example", description="Always an example.")
    prompt: str | None = Field(None, description="The question or the task.")
    answer: str | None = Field(None, description="The answer that a person gave.")


class PublishedTest(PublishedEvent):
    """A prompt and what a good answer says, as `prompt` and `reference` or as a JSON file that has both; with or without `key_insights`."""

    CONTENT = ("prompt", "reference")

    kind: Literal["test"] = Field("test", description="Always a test.")
    prompt: str | None = Field(None, description="The question or the task.")
    reference: str | None = Field(None, description="A good answer.")
    key_insights: KeyInsights | None = Field(None, description="Statements that a good answer contains, by kind.")


class PublishedDeliverable(PublishedEvent):
    """A finished deliverable and the draft that it was made from."""

    CONTENT = ("text",)

    kind: Literal["deliverable"] = Field("deliverable", description="Always a deliverable.")
    text: str | None = Field(None, description="Markdown or plain text.")
    draft_id: str = Field("", pattern=r"^(drf_[0-9a-f]{32})?$", description="The draft that it was made from.")


SCHEMAS: dict[str, type[PublishedEvent]] = {
    SUBMITTED: PublishedDocument,
    EXAMPLES: PublishedExample,
    TESTS: PublishedTest,
    DELIVERABLES: PublishedDeliverable,
}

PARENTS: dict[str, type[BaseModel]] = {"labels": PublishedLabels, "key_insights": KeyInsights}

# By pydantic's type of the error; braces take the error's context, which comes from the schema.
RULES = {
    "missing": "is required",
    "string_type": "must be a string",
    "string_too_short": "must have at least {min_length} character",
    "string_too_long": "must have at most {max_length} characters",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "greater_than_equal": "must be at least {ge}",
    "literal_error": "must be {expected}",
    "model_type": "must be an object",
    "list_type": "must be a list of strings",
}
PATTERN_RULES = {
    "labels.source": SLUG_RULE,
    "labels.department": SLUG_RULE,
    "labels.confidentiality": SLUG_RULE,
    "sha256": "must have 64 hexadecimal digits",
    "draft_id": DRAFT_ID_RULE,
}


def read_published(topic: str, value: bytes) -> PublishedEvent:
    """Validate an event's value. Raises Rejected (MALFORMED) with one sentence for each of the first five mistakes."""
    content = _load(value)
    try:
        return SCHEMAS[topic].model_validate(content)
    except ValidationError as error:
        mistakes = error.errors(include_url=False, include_input=False)[:MAX_MISTAKES]
        sentences = [_sentence(mistake, content, SCHEMAS[topic]) for mistake in mistakes]
        raise malformed(" ".join(sentences)) from None


def _load(value: bytes) -> Any:
    if not value:
        raise malformed(f"The event's value is empty. Send JSON. {FOR_A_FILE}")
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise malformed(f"The event's value is not valid JSON ({place}). {FOR_A_FILE}") from None
    except UnicodeDecodeError:
        raise malformed(f"The event's value is neither JSON nor UTF-8 text. {FOR_A_FILE}") from None
    except RecursionError:
        raise malformed("The JSON of the event nests too deeply.") from None
    except ValueError:
        raise malformed("The JSON of the event has a number with too many digits.") from None


def _sentence(mistake: ErrorDetails, content: Any, schema: type[BaseModel]) -> str:
    if mistake["type"] == "extra_forbidden":
        return _unknown_field(mistake["loc"], content, schema)
    field = ".".join(map(str, mistake["loc"]))
    if not field:
        return "The JSON of the event must be an object."
    if mistake["type"] == "string_pattern_mismatch":
        return f"`{field}` {PATTERN_RULES[field]}."
    sentence = f"`{field}` {RULES.get(mistake['type'], 'is invalid').format(**mistake.get('ctx', {}))}."
    return f"{sentence} {OTHER_TOPICS}" if field == "kind" and schema is PublishedDocument else sentence


def _unknown_field(loc: Sequence[int | str], content: Mapping[str, Any], schema: type[BaseModel]) -> str:
    *parents, name = map(str, loc)
    fields, where = list(schema.model_fields), "the event"
    if parents:
        parent = parents[0]
        fields, where = list(PARENTS[parent].model_fields), f"`{parent}`"
        content = content[parent]
    number = list(content).index(name) + 1
    close = difflib.get_close_matches(name[:MAX_COMPARED_CHARS], fields, 1)
    guess = f" Did you mean `{close[0]}`?" if close else ""
    return f"Field {number} of {where} is unknown.{guess} Allowed fields: {', '.join(fields)}."
