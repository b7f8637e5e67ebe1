"""Values that several services share. Standard library only."""

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True)
class Labels:
    """Slugs that classify a document. Each may be empty; none holds personal data.

    Ingestion sets `publisher` itself, the user of the topic or the id of the key; the publisher sends the others.
    """

    source: str = ""
    department: str = ""
    confidentiality: str = ""
    publisher: str = ""


class DatasetKind(StrEnum):
    """Kinds of datasets, by their rows."""

    SFT = "sft"
    PREFERENCE = "preference"


class SpanKind(StrEnum):
    """The kind of a file's part."""

    PAGE = "page"
    SECTION = "section"
    SHEET = "sheet"
    SLIDE = "slide"
    ATTACHMENT = "attachment"


@dataclass(frozen=True)
class Span:
    """The range [start, end) of a document's text, in Unicode code points, that came from one part of its file.

    `number` counts the parts of a kind from 1, and starts again in each attachment. `level` is that of a section's heading, 1 to 6, or 0.
    """

    kind: SpanKind
    number: int
    start: int
    end: int
    level: int = 0


@dataclass(frozen=True)
class Selection:
    """Labels of the documents that a specialist learns from. An empty tuple admits every value."""

    sources: tuple[str, ...] = ()
    departments: tuple[str, ...] = ()
    confidentialities: tuple[str, ...] = ()
    publishers: tuple[str, ...] = ()

    @property
    def admitted(self) -> dict[str, tuple[str, ...]]:
        """The values of each label that is limited, by its name."""
        fields = {
            "source": self.sources,
            "department": self.departments,
            "confidentiality": self.confidentialities,
            "publisher": self.publishers,
        }
        return {name: values for name, values in fields.items() if values}

    def admits(self, labels: Labels) -> bool:
        """True if every label is admitted."""
        return all(getattr(labels, name) in values for name, values in self.admitted.items())

    @property
    def common_labels(self) -> Labels:
        """The labels that all selected documents share; a label that may differ is empty."""
        return Labels(**{name: values[0] for name, values in self.admitted.items() if len(values) == 1})


@dataclass(frozen=True)
class Filters:
    """Limits on the selected documents that become rows, and on the share of one source. 0 and an empty tuple mean no limit.

    `same_publisher_tests` admits golden documents of a publisher whose other documents teach.
    """

    languages: tuple[str, ...] = ()
    min_chars: int = 0
    max_chars: int = 0
    boilerplate_documents: int = 0
    max_source_documents: int = 0
    max_source_percent: int = 0
    max_pairs_per_judgement: int = 0
    same_publisher_tests: bool = False


# The tasks that every specialist has.
TASKS = ("report", "section", "board_summary", "rewrite", "answer", "knowledge", "example", "deliverable")


@dataclass(frozen=True)
class OwnTask:
    """A task that only one specialist has, with the instruction for its rows and its teacher."""

    name: str
    instruction: str


@dataclass(frozen=True)
class RowPolicy:
    """How a specialist's documents become rows. 0 and an empty tuple mean: the base's context, every row, every task.

    Tokens are those of the base's tokenizer. A document's answers of built-in tasks have at most `max_answer_percent` of its characters,
    and its rows at most `max_document_percent` of the train tokens, if the documents are at least twice as many as that share needs.
    `replay` names imported datasets, of which `replay_percent` of the train rows are drawn.
    Revisions of commented drafts start by themselves with `critique_tokens_per_month`, and take no more tokens.
    """

    max_row_tokens: int = 0
    max_rows_per_document: int = 0
    max_answer_percent: int = 0
    max_document_percent: int = 10
    max_train_tokens: int = 0
    min_answer_tokens: int = 8
    held_out_percent: int = 12
    max_held_out_rows: int = 2000
    tasks: tuple[str, ...] = ()
    own_tasks: tuple[OwnTask, ...] = ()
    replay: tuple[str, ...] = ()
    replay_percent: int = 0
    critique_tokens_per_month: int = 0


class Thinking(StrEnum):
    """Whether a base thinks before it answers, and whether its callers see the thought."""

    OFF = "off"
    HIDDEN = "hidden"
    SHOWN = "shown"


@dataclass(frozen=True)
class SamplingDefaults:
    """How a specialist answers by default, and how it is evaluated. `max_tokens` 0 means what the base's context leaves."""

    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    max_tokens: int = 0
    thinking: Thinking = Thinking.OFF


@dataclass(frozen=True)
class MetricDefinition:
    """One metric of a specialist: a kind of `services/evaluation/metrics/` with its parameters as JSON."""

    name: str
    kind: str
    parameters_json: str = "{}"


@dataclass(frozen=True)
class Criterion:
    """One line of a rubric that marks answers from 1 to 5."""

    name: str
    description: str


@dataclass(frozen=True)
class JudgingCriterion:
    """A quality that experts mark from 1 to 5: what they ask themselves of a draft, and what drafts with mark 1 and mark 5 are like."""

    name: str
    question: str
    low: str
    high: str


# The criteria of specialists that define none.
DEFAULT_JUDGING_CRITERIA = (
    JudgingCriterion(
        "accuracy",
        "Is it factually correct?",
        "says what is wrong or not supported",
        "everything is correct and supported",
    ),
    JudgingCriterion(
        "style",
        "Is it in the house style?",
        "nobody here would write it like this",
        "reads like the work of this house",
    ),
    JudgingCriterion("usefulness", "Is it useful as it is?", "has to be written again", "can be sent without a change"),
)


@dataclass(frozen=True)
class EvaluationPolicy:
    """How a specialist's candidates are evaluated. `max_answers` 0 answers all evaluated rows; empty `suites` runs all."""

    max_rows: int = 200
    max_answers: int = 0
    few_shot: int = 3
    guidelines: str = ""
    optimize_prompt: bool = False
    external_models: tuple[str, ...] = ()
    suites: tuple[str, ...] = ()
    criteria: tuple[Criterion, ...] = ()
    min_judge_agreement: float = 0.4
    max_suite_items: int = 0
