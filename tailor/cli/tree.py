"""The whole tree of commands: verbs at the top, and one singular noun for each kind of thing, with its verbs."""

import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import typer

from tailor.cli import (
    adapters,
    agreement,
    approvals,
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
    feedback,
    guidelines,
    held,
    imports,
    keys,
    leaderboard,
    models,
    origins,
    outcomes,
    panel,
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
    specialist_changes,
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
VERBS_PANEL, NOUNS_PANEL = "Commands", "Things, each with its own commands"


@dataclass(frozen=True)
class Noun:
    """A kind of thing, and what can be done with it."""

    help: str
    verbs: dict[str, Command]
    hidden: bool = False


VERBS: dict[str, Command] = {
    "up": stack.up,
    "down": stack.down,
    "status": stack.status,
    "env": env.env,
    "demo": demo.demo,
    "publish": publish.publish,
    "audit": audit.audit,
    "build": build.build,
    "ask": ask.ask,
    "trace": trace.trace,
    "report-outcome": outcomes.report_outcome,
    "verify": verify_objects.verify,
}
NOUNS: dict[str, Noun] = {
    "specialist": Noun(
        "Define, change, show and delete specialists, and follow how each does.",
        {
            "list": specialists.list_specialists,
            "show": specialists.show,
            "create": specialists.create,
            "update": specialist_changes.update,
            "diff": specialist_changes.diff,
            "delete": specialist_changes.delete,
            "origins": origins.list_origins,
            "admit": origins.admit,
            "leaderboard": leaderboard.leaderboard,
            "feedback": feedback.feedback,
            "outcomes": outcomes.outcomes,
            "agreement": agreement.agreement,
            "panel": panel.panel,
            "guidelines": guidelines.guidelines,
            "bill": bill.bill,
            "report": report.report,
        },
    ),
    "document": Noun(
        "See what became of published documents.",
        {"list": documents.list_documents, "show": documents.show, "plant-secrets": planted_secrets.plant_secrets},
    ),
    "policy": Noun(
        "Check, compare, preview and install what is anonymised, and how.",
        {
            "list": policy.list_policies,
            "check": policy.check,
            "diff": policy.diff,
            "preview": policy.preview,
            "apply": policy.apply,
            "record": processing_record.record,
        },
    ),
    "replay": Noun(
        "Send what passed the barrier through it again.",
        {
            "list": replays.list_replays,
            "show": replays.show,
            "start": replays.start,
            "cancel": replays.cancel,
            "documents": replays.documents,
        },
    ),
    "review": Noun(
        "Review what the barrier left in documents, how much it is, and what it replaces too often.",
        {
            "sample": review.sample,
            "next": review.show_next,
            "decide": review.decide,
            "undo": review.undo,
            "drop": review.drop,
            "report": review.report,
            "combinations": review.combinations,
            "statement": review.statement,
            "verify": review.verify,
            "replaced": replaced_strings.list_replaced,
            "allow": replaced_strings.allow,
            "keep": replaced_strings.keep,
        },
    ),
    "erasure": Noun(
        "Erase documents and people, and show the signed receipts.",
        {
            "list": erasures.list_erasures,
            "show": erasures.show,
            "create": erasures.create,
            "lift": erasures.lift,
        },
    ),
    "subject": Noun(
        "Answer what is held about a person, and name the value behind a surrogate.",
        {"export": subject.export, "reidentify": subject.reidentify},
    ),
    "dataset": Noun(
        "See what specialists learn from, row by row, and import chats from elsewhere.",
        {
            "list": datasets.list_datasets,
            "show": datasets.show,
            "rows": rows.rows,
            "import": imports.import_dataset,
            "imports": imports.list_imports,
            "forget-import": imports.forget_import,
        },
    ),
    "synthesis": Noun(
        "Let a teacher write rows, within a budget, and review them.",
        {
            "list": syntheses.list_syntheses,
            "show": syntheses.show,
            "create": syntheses.create,
            "watch": syntheses.watch,
            "cancel": syntheses.cancel,
            "resume": syntheses.resume,
            "samples": syntheses.samples,
            "accept": syntheses.accept,
            "reject": syntheses.reject,
            "comments": syntheses.comments,
        },
    ),
    "run": Noun(
        "Plan, create, approve, watch, show and cancel training runs.",
        {
            "list": runs.list_runs,
            "show": runs.show,
            "plan": runs.plan,
            "create": runs.create,
            "approve": runs.approve,
            "watch": runs.watch,
            "cancel": runs.cancel,
        },
    ),
    "adapter": Noun(
        "Evaluate and compare adapters, and decide which one serves.",
        {
            "list": adapters.list_adapters,
            "show": evaluations.show,
            "compare": evaluations.compare,
            "evaluate": adapters.evaluate,
            "approvals": approvals.approvals,
            "approve": approvals.approve,
            "decline": approvals.decline,
            "promote": adapters.promote,
            "rollback": adapters.rollback,
            "decisions": approvals.decisions,
        },
    ),
    "canary": Noun(
        "Try an adapter on a share of the callers.", {"start": canary.start, "stop": canary.stop, "show": canary.show}
    ),
    "model": Noun(
        "Add and list bases; add detectors of personal values.",
        {"list": models.list_bases, "add": models.add, "add-detector": detectors.add_detector},
    ),
    "event": Noun(
        "Read topics; replay or skip what failed.",
        {"read": events.events, "dead": events.dead, "replay": events.replay, "skip": events.skip},
    ),
    "key": Noun(
        "Create, list and revoke API keys.", {"list": keys.list_keys, "create": keys.create, "revoke": keys.revoke}
    ),
    "person": Noun(
        "Invite, list and remove the people who sign in to the console.",
        {"list": people.list_people, "invite": people.invite, "renew": people.renew, "remove": people.remove},
    ),
    "held": Noun(
        "Calls that wait for a second person of data protection.",
        {"list": held.list_held, "approve": held.approve, "decline": held.decline, "repeat": held.repeat},
        hidden=True,
    ),
}


def add_commands(app: typer.Typer) -> None:
    """Add the whole tree to the root."""
    for name, command in VERBS.items():
        app.command(name, rich_help_panel=VERBS_PANEL)(command)
    for name, noun in NOUNS.items():
        group = typer.Typer(help=noun.help, no_args_is_help=True)
        for verb, command in noun.verbs.items():
            group.command(verb)(command)
        app.add_typer(group, name=name, hidden=noun.hidden, rich_help_panel=NOUNS_PANEL)


def describe_tree() -> Iterator[str]:
    """The tree on one screen: a line per verb with its purpose, then each noun with its verbs."""
    for name, command in VERBS.items():
        yield f"tailor {name:<16}{_first_sentence(command)}"
    yield ""
    for name, noun in NOUNS.items():
        if not noun.hidden:
            yield textwrap.fill(
                " ".join(noun.verbs), SCREEN, initial_indent=f"tailor {name:<16}", subsequent_indent=" " * 23
            )


def _first_sentence(command: Command) -> str:
    return str(command.__doc__).split("\n")[0].split(". ")[0].rstrip(".") + "."
