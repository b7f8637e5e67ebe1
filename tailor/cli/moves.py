"""`tailor specialist move`."""

from typing import Annotated

import typer

from tailor.api.registry.v1 import registry_pb2
from tailor.api.synthetic.v1 import synthetic_pb2
from tailor.api.training.v1 import training_pb2
from tailor.cli.build import build_dataset
from tailor.cli.messages import to_dict
from tailor.cli.options import SpecialistName
from tailor.cli.output import short
from tailor.cli.run_views import PLAN_SECONDS, find_run
from tailor.cli.session import CommandSession
from tailor.errors import FailedPrecondition, Reason, Unavailable
from tailor.events.envelope import new_id
from tailor.retry import retry

# Synthetic reads the definition from its topic, in seconds.
ATTEMPTS = 30


def move(
    session: CommandSession,
    name: SpecialistName,
    base: Annotated[str, typer.Option(help="The other base; `tailor model list` lists those that were added.")],
) -> None:
    """Train a specialist on another base, and let it serve from there if its gate admits it. Idempotent.

    Its rows are built for the base, and the run of its pipeline follows. The evaluation compares the result with the base and with what
    serves now, which answers until replicas of the new base serve the new adapter. To give up, move it back.
    """
    with session.connections.client() as client:
        served = {item.provenance.base for item in client.specialists()}
    if base not in served:
        raise FailedPrecondition(
            Reason.NOT_SERVING,
            f"No inference deployment has the base {base}, so nothing could be evaluated on it. Add one first: docs/inference/bases.md.",
        )
    registry = session.connections.registry
    current = registry.GetSpecialist(registry_pb2.GetSpecialistRequest(name=name)).specialist
    if current.base != base:
        current.base = base
        registry.UpdateSpecialist(registry_pb2.UpdateSpecialistRequest(specialist=current))
    built = retry(lambda: _build(session, name, base), attempts=ATTEMPTS, max_seconds=2.0)
    fields = None if built.created else find_run(session.connections, built.dataset)
    run_id = ""
    if fields:
        # Rows that are the same for both bases start no run by themselves. The run of the same datasets and base is made once.
        request = training_pb2.CreateRunRequest(**fields, request_id=new_id("req"))
        run_id = session.connections.training.CreateRun(request, timeout=PLAN_SECONDS).run.run_id
    text = f"Dataset {short(built.dataset.digest)} is built for {base}. "
    text += f"Follow its run with `tailor run watch {run_id}`" if run_id else "Its run follows: `tailor run list`"
    leaderboard = f"`tailor specialist leaderboard {name}` compares the result with what serves."
    session.output.emit({**to_dict(built), "run_id": run_id}, f"{text}; {leaderboard}")


def _build(session: CommandSession, name: str, base: str) -> synthetic_pb2.BuildDatasetResponse:
    """Build the rows for the base. Raises Unavailable while synthetic knows the specialist's former base only."""
    built = build_dataset(session.connections.synthetic, name, new_id("req"))
    if built.dataset.base != base:
        raise Unavailable(Reason.NOT_CAUGHT_UP, "Synthetic has not read the specialist's new base yet. Retry.")
    return built
