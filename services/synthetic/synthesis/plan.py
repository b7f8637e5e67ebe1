"""The requests of a synthesis in order: which seed, which cell of the grid, which examples. Deterministic, so that it can resume."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from services.synthetic.domain import Range, fingerprint
from services.synthetic.synthesis.domain import SynthesisSpec
from services.synthetic.synthesis.tasks import FactSource, TeacherTask, find_tasks
from tailor.values import Span

MAX_COMBINATIONS = 10_000
FEW_SHOT = 3
# A request may be refused; after this many per wanted row the synthesis ends without its target.
REQUESTS_PER_ROW = 5
SPARE_REQUESTS = 20


@dataclass(frozen=True)
class Seed:
    """A passage of a document, or an example by a person, which has a prompt. `key` names it in lineages, `document_id` for erasures."""

    key: str
    text: str
    prompt: str = ""
    document_id: str = ""
    language: str = ""
    heading: str = ""
    place: Range = (0, 0)
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True)
class TeacherRequest:
    """One request: a view of a task in one cell of the grid. `passage` is None for tasks whose facts occur in the request."""

    number: int
    task: TeacherTask
    passage: Seed | None
    examples: tuple[Seed, ...] = ()
    attributes: tuple[tuple[str, str], ...] = ()
    persona: str = ""
    language: str = ""
    variant: int = 0

    @property
    def seeds(self) -> tuple[Seed, ...]:
        """Every seed that the teacher sees."""
        return (*((self.passage,) if self.passage else ()), *self.examples)

    @property
    def document_ids(self) -> tuple[str, ...]:
        """The documents of its seeds."""
        return tuple(sorted({seed.document_id for seed in self.seeds if seed.document_id}))


@dataclass(frozen=True)
class _Cell:
    task: TeacherTask
    language: str
    persona: str
    attributes: tuple[tuple[str, str], ...]


class SynthesisPlan:
    """The requests by number. Every passage goes through all cells of the grid before one repeats."""

    def __init__(self, key: str, spec: SynthesisSpec, seeds: Sequence[Seed]) -> None:
        self._cells = _shuffle_cells(key, spec)
        by_hash = sorted(seeds, key=lambda seed: fingerprint("seed", key, seed.key))
        self._examples = [seed for seed in by_hash if seed.prompt]
        self._passages = [seed for seed in by_hash if not seed.prompt]
        most = max(cell.task.rows for cell in self._cells)
        self.max_requests = -(-spec.target // most) * REQUESTS_PER_ROW + SPARE_REQUESTS if seeds else 0

    def request(self, number: int) -> TeacherRequest:
        """The request with a number, from 0."""
        count = max(1, len(self._passages))
        lap, at = divmod(number, count)
        cell = self._cells[(lap + at) % len(self._cells)]
        passage = self._passages[at] if cell.task.source is FactSource.PASSAGE else None
        return TeacherRequest(
            number,
            cell.task,
            passage,
            self._few_shot(number, cell.task),
            cell.attributes,
            cell.persona,
            cell.language or _seed_language(passage, self._passages or self._examples),
            lap // len(self._cells),
        )

    def _few_shot(self, number: int, task: TeacherTask) -> tuple[Seed, ...]:
        """Examples by people first; passages too for tasks that have no source of their own."""
        pool = self._examples if task.source is FactSource.PASSAGE else [*self._examples, *self._passages]
        chosen = [pool[(number + step) % len(pool)] for step in range(min(FEW_SHOT, len(pool)))]
        return tuple(dict.fromkeys(chosen))


def count_combinations(spec: SynthesisSpec) -> int:
    """The number of cells of a grid."""
    count = len(find_tasks(spec.task)) * max(1, len(spec.languages)) * max(1, len(spec.personas))
    for attribute in spec.attributes:
        count *= max(1, len(attribute.values))
    return count


def _shuffle_cells(key: str, spec: SynthesisSpec) -> list[_Cell]:
    """All cells, in an order by hash, so that a few requests already differ in every dimension."""
    grid = [[(attribute.name, value) for value in attribute.values] for attribute in spec.attributes]
    cells = [
        _Cell(task, language, persona, combination)
        for task, language, persona, combination in product(
            find_tasks(spec.task), spec.languages or ("",), spec.personas or ("",), product(*grid)
        )
    ]
    return sorted(cells, key=lambda cell: fingerprint("cell", key, cell))


def _seed_language(passage: Seed | None, others: Sequence[Seed]) -> str:
    if passage is not None:
        return passage.language or "en"
    return next((seed.language for seed in others if seed.language), "en")
