"""The whole tree of commands: verbs at the top, and one singular noun for each kind of thing, with its verbs."""

import functools
import inspect
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import typer

from tailor.cli import (
    adapter_export,
    adapters,
    ask,
    audit,
    bill,
    build,
    canary,
    datasets,
    demo,
    detectors,
    documents,
    env,
    erasures,
    evaluations,
    events,
    experts,
    imports,
    keys,
    models,
    moves,
    origins,
    outcomes,
    people,
    planted_secrets,
    policy,
    processing_record,
    publish,
    replaced_strings,
    replays,
    report,
    review,
    rows,
    runs,
    specialists,
    stack,
    subject,
    syntheses,
    trace,
    verify_objects,
)

Command = Callable[..., None]
# Columns of the tree on a page.
SCREEN = 120


@dataclass(frozen=True)
class Noun:
    """A kind of thing, and the functions that do something with it."""

    help: str
    commands: tuple[Command, ...]


VERBS: tuple[Command, ...] = (
    stack.up, stack.down, stack.status, env.env, demo.demo, publish.publish, audit.audit, build.build, ask.ask, trace.trace,
    outcomes.report_outcome, verify_objects.verify,
)  # fmt: skip
NOUNS = {
    "specialist": Noun(
        "Define, change, show and delete specialists, and follow how each does.",
        (
            specialists.list_specialists, specialists.show, specialists.create, specialists.update, specialists.diff,
            specialists.delete, moves.move, origins.origins, origins.admit, specialists.leaderboard, outcomes.feedback, outcomes.outcomes,
            experts.agreement, experts.panel, experts.guidelines, bill.bill, report.report,
        ),
    ),
    "document": Noun(
        "See what became of published documents.",
        (documents.list_documents, documents.show, planted_secrets.plant_secrets),
    ),
    "policy": Noun(
        "Check, compare, preview and install what is anonymised, and how.",
        (policy.list_policies, policy.check, policy.diff, policy.preview, policy.apply, processing_record.record),
    ),
    "replay": Noun(
        "Send what passed the barrier through it again.",
        (replays.list_replays, replays.show, replays.start, replays.cancel),
    ),
    "review": Noun(
        "Review what the barrier left in documents, how much it is, and what it replaces too often.",
        (
            review.sample, review.next_, review.decide, review.undo, review.drop, review.report, review.combinations, review.statement,
            review.verify, replaced_strings.replaced, replaced_strings.allow, replaced_strings.keep,
        ),
    ),
    "erasure": Noun(
        "Erase documents and people, and show the signed receipts.",
        (erasures.list_erasures, erasures.show, erasures.create, erasures.lift),
    ),
    "subject": Noun(
        "Answer what is held about a person, and name the value behind a surrogate.", (subject.export, subject.reidentify)
    ),
    "dataset": Noun(
        "See what specialists learn from, row by row, and import chats from elsewhere.",
        (datasets.list_datasets, datasets.show, rows.rows, imports.import_, imports.imports, imports.forget_import),
    ),
    "synthesis": Noun(
        "Let a teacher write rows, within a budget, and review them.",
        (
            syntheses.list_syntheses, syntheses.show, syntheses.create, syntheses.watch, syntheses.cancel, syntheses.resume,
            syntheses.samples, syntheses.accept, syntheses.reject, syntheses.comments,
        ),
    ),
    "run": Noun(
        "Plan, create, approve, watch, show and cancel training runs.",
        (runs.list_runs, runs.show, runs.plan, runs.create, runs.approve, runs.watch, runs.cancel),
    ),
    "adapter": Noun(
        "Evaluate and compare adapters, and decide which one serves.",
        (
            adapters.list_adapters, evaluations.show, evaluations.compare, adapters.evaluate, adapters.approvals, adapters.approve,
            adapters.decline, adapters.promote, adapters.rollback, adapters.decisions, adapter_export.export,
        ),
    ),
    "canary": Noun("Try an adapter on a share of the callers.", (canary.start, canary.stop, canary.show)),
    "model": Noun(
        "Add and list bases; add detectors of personal values.", (models.list_bases, models.add, detectors.add_detector)
    ),
    "event": Noun("Read topics; replay or skip what failed.", (events.read, events.dead, events.replay, events.skip)),
    "key": Noun("Create, list and revoke API keys.", (keys.list_keys, keys.create, keys.revoke)),
    "person": Noun(
        "Invite, list and remove the people who sign in to the console.",
        (people.list_people, people.invite, people.renew, people.remove),
    ),
}  # fmt: skip


def add_commands(app: typer.Typer) -> None:
    """Add the whole tree to the root."""
    for command in VERBS:
        app.command(name_of(command), rich_help_panel="Commands")(_with_session(command))
    for name, noun in NOUNS.items():
        group = typer.Typer(help=noun.help, no_args_is_help=True)
        for command in noun.commands:
            group.command(name_of(command))(_with_session(command))
        app.add_typer(group, name=name, rich_help_panel="Things, each with its own commands")


def _with_session(command: Command) -> Command:
    """The command as typer calls it: with its context, in the place of the session that the root opened."""
    _, *others = inspect.signature(command).parameters.values()

    @functools.wraps(command)
    def run(context: typer.Context, **arguments: Any) -> None:
        command(context.obj, **arguments)

    context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    run.__signature__ = inspect.Signature([context, *others])  # type: ignore[attr-defined]
    run.__annotations__ = {"context": typer.Context, **{item.name: item.annotation for item in others}}
    return run


def name_of(command: Command) -> str:
    """The word for a function: `list` for `list_runs`, `next` for `next_`, `add-detector` for `add_detector`."""
    name = command.__name__
    return "list" if name.startswith("list_") else name.strip("_").replace("_", "-")


def describe_tree() -> Iterator[str]:
    """The tree on one screen: a line per verb with its purpose, then each noun with its verbs."""
    for command in VERBS:
        purpose = str(command.__doc__).split("\n")[0].split(". ")[0].rstrip(".")
        yield f"tailor {name_of(command):<16}{purpose}."
    yield ""
    for name, noun in NOUNS.items():
        verbs = " ".join(map(name_of, noun.commands))
        yield textwrap.fill(verbs, SCREEN, initial_indent=f"tailor {name:<16}", subsequent_indent=" " * 23)
