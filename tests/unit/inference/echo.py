"""An engine that repeats its question."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from services.inference.domain import CANCELLED, STOPPED, AnswerPiece, Sampling
from services.inference.ports import Stream
from tests.unit.inference.fakes import FakeEngine


@dataclass
class EchoStream(Stream):
    """Repeats a text, `size` characters per token."""

    text: str
    size: int
    finish: str
    is_cancelled: bool = False

    def __iter__(self) -> Iterator[AnswerPiece]:
        starts = range(0, len(self.text), self.size)
        for count, start in enumerate(starts, 1):
            if self.is_cancelled:
                yield AnswerPiece("", count - 1, CANCELLED)
                return
            yield AnswerPiece(self.text[start : start + self.size], count)
        yield AnswerPiece("", len(starts), self.finish)

    def cancel(self) -> None:
        self.is_cancelled = True


class EchoEngine(FakeEngine):
    """Answers with `prefix` and the last message, and records sampling and schemas."""

    def __init__(self, size: int = 3) -> None:
        super().__init__(context_length=10_000)
        self.size = size
        self.finish = STOPPED
        self.prefix = ""
        self.given: list[Sampling] = []
        self.checked: list[str] = []
        self.echoes: list[EchoStream] = []

    def check_schema(self, schema: str, cancelled: Callable[[], bool]) -> None:
        self.checked.append(schema)

    def generate(self, prompt: tuple[int, ...], adapter: str, sampling: Sampling) -> Stream:
        self.given.append(sampling)
        self.echoes.append(EchoStream(self.prefix + self.encoded[-1][-1].content, self.size, self.finish))
        return self.echoes[-1]
