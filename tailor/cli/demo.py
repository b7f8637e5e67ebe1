"""`tailor demo`: a company's documents become a model, in one command."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tailor.api.registry.v1 import registry_pb2
from tailor.api.training.v1 import training_pb2
from tailor.cli import demo_documents, demo_training
from tailor.cli.calls import unary
from tailor.cli.connections import Connections, Endpoints
from tailor.cli.demo_asking import ask_both, read_questions
from tailor.cli.demo_report import (
    AdapterFigures,
    DatasetFigures,
    Report,
    RunFigures,
    ScoreFigures,
    print_report,
)
from tailor.cli.demo_view import View
from tailor.cli.demo_wait import patiently, until
from tailor.cli.session import session_of
from tailor.cli.specialists import define, read_definition
from tailor.cli.stack import follow, waits
from tailor.cli.submissions import Description, collect
from tailor.client import TailorClient
from tailor.errors import FailedPrecondition, Reason

SAMPLE = Path(__file__).parents[2] / "deploy" / "sample"
PHASES = ("up", "base", "documents", "dataset", "training", "evaluation", "asking")
NOTHING_NEW = "nothing is new: the corpus is unchanged, no run was started"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo")(demo)


def demo(
    context: typer.Context,
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the stack up afterwards.")] = False,
    sample: Annotated[
        Path, typer.Option(exists=True, file_okay=False, help="Holds specialist.toml, documents/ and questions.json.")
    ] = SAMPLE,
) -> None:
    """Start the embedded stack, publish a sample corpus, train a specialist, and ask it beside the base.

    Everything shown comes from events and gRPC. The figures are left in `demo.json` in the state directory. Exit status 1 where the gate
    refuses the adapter. Run again on an unchanged corpus, it trains nothing.
    """
    from tailor.local import stack

    session = session_of(context)
    state_dir = session.connections.state_dir
    connections = Connections(Endpoints(state_dir))
    report = Report()
    view = View(session.output.notes, PHASES)
    walk = Demo(connections, sample, view, report)
    try:
        with view:
            walk.run()
    finally:
        connections.close()
        if keep:
            session.output.notes.print("The stack stays up; `tailor down` stops it.", markup=False)
        else:
            session.output.notes.print("Stopping everything ...")
            stack.down(state_dir)
    for refusal in walk.refusals:
        session.output.notes.print(f"refused: {refusal}", markup=False, highlight=False, soft_wrap=True)
    hints = _how_to_go_on(state_dir, report) if keep else ""

    def render(console: Console) -> None:
        print_report(console, report)
        console.print(hints, markup=False, highlight=False, soft_wrap=True)

    session.output.emit(report.document(), render)
    if not report.promoted:
        raise FailedPrecondition(Reason.GATE_NOT_MET, "The evaluation did not meet the gate; nothing was promoted.")


class Demo:
    """Goes through the phases and fills in the report. A bad sample is refused before anything starts."""

    def __init__(self, connections: Connections, sample: Path, view: View, report: Report) -> None:
        self._connections = connections
        self._view = view
        self._report = report
        self._file = connections.state_dir / "demo.json"
        self._definition = read_definition(sample / "specialist.toml")
        self._submissions = collect([sample / "documents"], Description())
        self.refusals: list[str] = []
        self._questions = read_questions(sample / "questions.json")

    def run(self) -> None:
        """All phases; the report is written at the end, also where the gate refuses."""
        self._file.unlink(missing_ok=True)
        self._up()
        with self._connections.client() as client:
            self._base(client)
            self._documents()
            adapter = self._train()
            if self._evaluate(client, adapter):
                self._ask(client)
        self._report.seconds = self._view.seconds
        self._report.save(self._file)

    def _up(self) -> None:
        from tailor.local import stack

        with self._view.phase("up"):
            follow(
                stack.up(self._connections.state_dir), lambda snapshot: self._view.now(f"waits for {waits(snapshot)}")
            )
            self._view.now("every part is healthy")

    def _base(self, client: TailorClient) -> None:
        name = self._definition.base

        def there() -> tuple[bool | None, str]:
            request = training_pb2.ListBasesRequest()
            bases = unary("training", self._connections.training.ListBases, request).bases
            return (any(base.name == name for base in bases) or None), f"fetching {name}"

        with self._view.phase("base"):
            until(there, self._view.now)
            patiently(client.specialists, self._view.now)
            self._view.now(f"{name} is there, and answers")

    def _documents(self) -> None:
        from tailor.cli.reader import Start, TopicReader

        now = self._view.now
        with self._view.phase("documents"):
            created = patiently(lambda: define(self._connections.registry, self._definition), now).created
            reader = patiently(lambda: TopicReader(self._connections.kafka(), demo_documents.TOPICS, Start.END), now)
            with reader:
                if not created:
                    demo_documents.wait_for_quiet(reader.poll, now)
                published, tally = demo_documents.publish_and_follow(
                    self._connections, self._submissions, reader.poll, now
                )
        self._report.documents_published = published
        self._report.documents_anonymized = tally.anonymized
        self._report.documents_rejected = tally.rejected
        self._report.personal_data_found = tally.findings

    def _train(self) -> registry_pb2.CatalogueAdapter:
        connections, now = self._connections, self._view.now
        with self._view.phase("dataset"):
            answer = demo_training.build(connections, self._definition.name, now)
        dataset = answer.dataset
        self._report.dataset = DatasetFigures(dataset.digest, dataset.train_rows, dataset.held_out_rows)
        with self._view.phase("training"):
            item = None if answer.created else demo_training.adapter_of_dataset(connections, dataset, now)
            if item:
                now(NOTHING_NEW)
            else:
                item = demo_training.train(connections, dataset, now)
        made = item.adapter
        self._report.adapter = AdapterFigures(made.digest)
        self._report.run = RunFigures(
            made.run_id, made.seconds, made.steps, made.first_loss, made.last_loss, made.tokens_per_second
        )
        return item

    def _evaluate(self, client: TailorClient, item: registry_pb2.CatalogueAdapter) -> bool:
        with self._view.phase("evaluation"):
            item = demo_training.evaluate(self._connections, item.adapter, self._view.now)
            scores = item.evaluation
            self._report.scores = ScoreFigures(dict(scores.base.values), dict(scores.candidate.values))
            self._report.promoted = item.decision == registry_pb2.DECISION_PASSED
            if self._report.promoted:
                demo_training.wait_until_served(self._connections, client, item.adapter, self._view.now)
                self._view.now(f"{scores.rows} held-out rows; the gate is met, and the adapter serves")
            else:
                self.refusals = list(item.refusals)
                self._view.now("the gate is not met; nothing is promoted")
        return self._report.promoted

    def _ask(self, client: TailorClient) -> None:
        with self._view.phase("asking"):
            self._report.answers = ask_both(
                client, self._definition.name, self._questions, self._view.now, self._view.show
            )


def _how_to_go_on(state_dir: Path, report: Report) -> str:
    from tailor.local import stack

    place = stack.connection(state_dir)
    option = "" if state_dir == Path(".tailor") else f" --state-dir {state_dir}"
    draft = report.answers[0].draft_id if report.answers else "DRAFT"
    return (
        "\nThe stack is up. Go on with:\n"
        f'  tailor ask engagement-reports "Write a board summary about ..." --compare{option}\n'
        f"  tailor trace {draft}{option}\n"
        f"  {place.console_url}  (password in {place.console_password_file})\n"
        f"  tailor down{option}"
    )
