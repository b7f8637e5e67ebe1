"""Lets an answer with a seed wait until its whole prompt is read, which takes several steps if the prompt is long or the engine is busy.

vLLM draws a token for every row of a step, also where a part of the prompt is still to come, and then sets the generator of such a row
back by an offset. The generators of a CPU have no offset: the step fails, and the engine ends.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def hold_generators(runner: Any) -> Iterator[None]:
    """While a step of vLLM's model runner draws its tokens: rows whose prompt is not complete do not use their own generators."""
    batch = runner.input_batch
    incomplete = runner.discard_request_mask.np[: batch.num_reqs].nonzero()[0].tolist()
    held = {row: batch.generators.pop(row) for row in incomplete if row in batch.generators}
    try:
        yield
    finally:
        batch.generators.update(held)
