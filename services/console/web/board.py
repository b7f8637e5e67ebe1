"""The flow at work as plain values, for the page and for its refresh alike."""

from collections.abc import Mapping

from services.console.domain import Action, Visitor
from services.console.handlers import Overview
from services.console.runs import Run
from services.console.views import Adapter, Page
from services.console.web.render import duration, number, short

Stage = dict[str, str]


def board(view: Overview, visitor: Visitor) -> dict[str, object]:
    """Stages in the order of the flow, what was rejected and found, and which services answer."""
    flow = view.flow
    stages = [
        _stage("submitted", flow.submitted, f"{number(flow.under_way)} under way", busy=flow.under_way > 0),
        _stage("ingested", flow.ingested, "clean text, encrypted", busy=flow.under_way > 0),
        _stage("anonymised", flow.anonymized, f"{number(sum(flow.findings.values()))} values replaced"),
    ]
    if visitor.may(Action.RUNS):
        stages += [_rows(view), _run(view.runs), _evaluation(view.adapters), _serving(view)]
    silent = {failure.service for failure in view.failures}
    stages = [_unknown(stage) if _source(stage) in silent else stage for stage in stages]
    return {
        "stages": stages,
        "rejected_total": number(flow.rejected_total),
        "rejected": _counts(flow.rejected),
        "findings": _counts(flow.findings),
        "dead_lettered": _counts(flow.dead_lettered),
        "services": [{"name": name, "state": "up" if up else "down"} for name, up in view.healthy.items()],
        "failures": [vars(failure) for failure in view.failures],
    }


def _stage(name: str, value: object, note: str, *, busy: bool = False, state: str = "") -> Stage:
    shown = number(value) if isinstance(value, int) else str(value)
    done = "done" if value not in (0, "–") else "idle"
    return {"name": name, "value": shown, "note": note, "state": state or ("busy" if busy else done)}


def _source(stage: Stage) -> str:
    return "training" if stage["name"] == "run" else "registry"


def _unknown(stage: Stage) -> Stage:
    return {"name": stage["name"], "value": "–", "note": f"{_source(stage)} does not answer", "state": "idle"}


def _counts(counts: Mapping[str, int]) -> list[dict[str, object]]:
    items = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    most = max((count for _, count in items), default=1)
    return [
        {"name": name.lower().replace("_", " "), "count": number(count), "share": round(100 * count / most)}
        for name, count in items
        if count
    ]


def _rows(view: Overview) -> Stage:
    built = view.datasets.items
    if not built:
        return _stage("rows", 0, "no dataset yet")
    newest = built[0]
    count = newest.train_rows + newest.held_out_rows
    return _stage("rows", count, f"{number(newest.held_out_rows)} held out · {_many(len(built), 'dataset')}")


def _run(runs: Page[Run]) -> Stage:
    if not runs.items:
        return _stage("run", "–", "none yet")
    newest = next((run for run in runs.items if run.state == "running"), runs.items[0])
    said = newest.progress
    if newest.state == "running" and said:
        percent = f"{100 * said.step / said.total_steps:.0f} %" if said.total_steps else said.phase
        note = f"loss {said.loss:.3f} · {duration(said.remaining_seconds)} left" if said.step else said.phase
        return _stage("run", percent, note, busy=True)
    note = f"loss {newest.first_loss:.2f} → {said.loss:.2f}" if said and newest.first_loss else newest.reason
    state = {"failed": "bad", "succeeded": "done", "cancelled": "idle"}.get(newest.state, "busy")
    return _stage("run", newest.state, note or _many(len(runs.items), "run"), state=state)


def _evaluation(adapters: Page[Adapter]) -> Stage:
    policies = [adapter for adapter in adapters.items if adapter.kind == "policy"]
    if not policies:
        return _stage("evaluation", "–", "no adapter yet")
    newest = policies[0]
    note = f"{number(newest.evaluation.rows)} held-out rows" if newest.evaluation else "being measured"
    state = {"passed": "done", "refused": "bad"}.get(newest.decision, "busy")
    return _stage("evaluation", newest.decision, note, state=state)


def _serving(view: Overview) -> Stage:
    served = [item for item in view.specialists.items if item.serving.adapter_digest]
    if not served:
        return _stage("serving", 0, f"of {_many(len(view.specialists.items), 'specialist')}")
    newest = max(served, key=lambda item: str(item.serving.create_time))
    note = f"{short(newest.serving.adapter_digest)} · generation {newest.serving.generation}"
    return _stage("serving", len(served), note)


def _many(count: int, word: str) -> str:
    return f"{number(count)} {word}{'' if count == 1 else 's'}"
