"""The board of the Flow page: one tile per stage of the flow, as JSON values: documents of the whole installation, then one specialist.

templates/flow.html shows them first, and static/console.js updates them from `/api/flow`: both read the keys that are written here.
"""

from collections.abc import Mapping

from services.console.domain import Page, Permission, Visitor
from services.console.overview import Overview
from services.console.rules import count_rejected, count_submitted, count_under_way, word
from services.console.web.render import duration, number, short
from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1.registry_pb2 import CatalogueAdapter, GetSpecialistResponse
from tailor.api.training.v1 import training_pb2

# A tile: its name, the value in large type, a note below it, and a state that the stylesheet colours: busy, done, idle or bad.
Stage = dict[str, str]


def make_board(view: Overview, visitor: Visitor) -> dict[str, object]:
    """Stages in the order of the flow, counts of rejections and findings, and which services answer.

    A stage whose service does not answer shows a dash. Visitors who may not see runs get the stages before the rows only;
    `specialist` is then empty, as it is before one exists.
    """
    flow, under_way = view.flow, count_under_way(view.flow)
    stages = [
        _make_stage("submitted", count_submitted(flow), f"{number(under_way)} in progress", busy=under_way > 0),
        _make_stage("ingested", flow.ingested, "clean text, encrypted", busy=under_way > 0),
        _make_stage("anonymised", flow.anonymized, f"{number(sum(flow.findings.values()))} values replaced"),
    ]
    if visitor.may(Permission.RUNS):
        stages += [
            _show_rows(view.datasets),
            _show_run(view.runs),
            _show_evaluation(view.adapters),
            _show_serving(view.entry),
        ]
    silent = {failure.service for failure in view.failures}
    sources = [(stage, _find_service(stage, view)) for stage in stages]
    stages = [_mark_unknown(stage, source) if source in silent else stage for stage, source in sources]
    return {
        "specialist": view.entry.specialist.name if view.entry else "",
        "stages": stages,
        "rejected_total": number(count_rejected(flow)),
        "rejected": _rank_counts(flow.rejected),
        "findings": _rank_counts(flow.findings),
        "dead_lettered": _rank_counts(flow.dead_lettered),
        "services": [{"name": name, "state": "up" if up else "down"} for name, up in view.healthy.items()],
        "failures": [vars(failure) for failure in view.failures],
    }


def _make_stage(name: str, value: object, note: str, *, busy: bool = False, state: str = "") -> Stage:
    shown = number(value) if isinstance(value, int) else str(value)
    done = "done" if value not in (0, "–") else "idle"
    return {"name": name, "value": shown, "note": note, "state": state or ("busy" if busy else done)}


def _find_service(stage: Stage, view: Overview) -> str:
    # Without the registry, it is not known whose runs are shown.
    return "training" if stage["name"] == "run" and view.entry else "registry"


def _mark_unknown(stage: Stage, service: str) -> Stage:
    return {"name": stage["name"], "value": "–", "note": f"{service} does not answer", "state": "idle"}


def _rank_counts(counts: Mapping[str, int]) -> list[dict[str, object]]:
    items = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    most = max((count for _, count in items), default=1)
    return [
        {"name": name.lower().replace("_", " "), "count": number(count), "share": round(100 * count / most)}
        for name, count in items
        if count
    ]


def _show_rows(datasets: Page[models_pb2.DatasetBuilt]) -> Stage:
    if not datasets.items:
        return _make_stage("rows", 0, "no dataset yet")
    newest = datasets.items[0]
    count = newest.train_rows + newest.held_out_rows
    return _make_stage(
        "rows", count, f"{number(newest.held_out_rows)} held out · {_format_count(len(datasets.items), 'dataset')}"
    )


def _show_run(runs: Page[training_pb2.Run]) -> Stage:
    if not runs.items:
        return _make_stage("run", "–", "none yet")
    running = (run for run in runs.items if run.state == training_pb2.RUN_STATE_RUNNING)
    newest = next(running, runs.items[0])
    state, progress = word(newest, "state"), newest.progress
    if state == "running" and newest.HasField("progress"):
        percent = f"{100 * progress.step / progress.total_steps:.0f} %" if progress.total_steps else progress.phase
        left = f"loss {progress.loss:.3f} · {duration(progress.remaining_seconds)} left"
        return _make_stage("run", percent, left if progress.step else progress.phase, busy=True)
    has_losses = newest.HasField("progress") and newest.first_loss
    note = f"loss {newest.first_loss:.2f} → {progress.loss:.2f}" if has_losses else newest.reason
    tones = {"failed": "bad", "succeeded": "done", "cancelled": "idle", "awaiting approval": "waiting"}
    colour = tones.get(state, "busy")
    return _make_stage("run", state, note or _format_count(len(runs.items), "run"), state=colour)


# How the tile of the newest adapter's evaluation looks; other states are done.
STATE_TONES = {
    "evaluating": "busy",
    "refused": "bad",
    "declined": "bad",
    "withdrawn": "bad",
    "retired": "bad",
    "overridden": "bad",
    "undecided": "waiting",
    "waiting for approval": "waiting",
}


def _show_evaluation(adapters: Page[CatalogueAdapter]) -> Stage:
    policies = [item for item in adapters.items if item.adapter.kind == models_pb2.ADAPTER_KIND_POLICY]
    if not policies:
        return _make_stage("evaluation", "–", "no adapter yet")
    newest = policies[0]
    measured = newest.HasField("evaluation")
    note = f"{number(newest.evaluation.rows)} held-out rows" if measured else "evaluation in progress"
    word_of_state = word(newest, "state")
    return _make_stage("evaluation", word_of_state, note, state=STATE_TONES.get(word_of_state, "done"))


def _show_serving(entry: GetSpecialistResponse | None) -> Stage:
    decision = entry.serving.decision if entry else models_pb2.SpecialistServing()
    if not decision.generation or decision.ended:
        return _make_stage("serving", "–", "nothing serves")
    served = short(decision.adapter_digest) if decision.adapter_digest else "the base"
    return _make_stage("serving", served, f"generation {decision.generation}")


def _format_count(count: int, noun: str) -> str:
    return f"{number(count)} {noun}{'' if count == 1 else 's'}"
