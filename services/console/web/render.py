"""Templates and how values are written for people. Everything is escaped unless a template cannot escape it."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from services.console.domain import Action, Visitor
from services.console.web.sessions import Session

HERE = Path(__file__).parent
SIZES = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))
LOWER_IS_BETTER = frozenset({"perplexity"})
METRIC_NAMES = {
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "bleu": "BLEU",
    "house_terms_f1": "House terms F1",
    "perplexity": "Perplexity",
    "parity": "Parity (nats a token)",
    "held_out_loss": "Held-out loss",
    "reward_accuracy": "Reward accuracy",
    "win_rate": "Win rate",
    "kl": "KL",
}
NAVIGATION = (
    ("/", "Flow", Action.FLOW),
    ("/documents", "Documents", Action.DOCUMENTS),
    ("/audit", "Audit", Action.AUDIT),
    ("/datasets", "Datasets", Action.DATASETS),
    ("/runs", "Runs", Action.RUNS),
    ("/adapters", "Adapters", Action.ADAPTERS),
    ("/specialists", "Specialists", Action.SPECIALISTS),
    ("/ask", "Ask", Action.ASK),
    ("/drafts", "Drafts", Action.TRACE),
    ("/erasures", "Erasures", Action.ERASURES),
    ("/keys", "Keys", Action.KEYS),
)


def when(value: datetime | None) -> str:
    """A time in UTC, to the minute."""
    return value.strftime("%Y-%m-%d %H:%M") if value else "–"


def number(value: float) -> str:
    """A number with at most four significant digits after grouping."""
    if isinstance(value, int) or float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.4g}"


def score(value: float) -> str:
    """A score with three decimals."""
    return f"{value:.3f}"


def duration(seconds: float) -> str:
    """Seconds as the largest fitting unit and the next one."""
    for size, unit in UNITS:
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"


def size(count: float) -> str:
    """Bytes as the largest fitting unit."""
    for unit, name in SIZES:
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count:.0f} B"


def amount(value: float, unit: str) -> str:
    """A figure in its unit: `count`, `bytes`, `seconds`, or a currency."""
    if unit == "count":
        return number(round(value))
    if unit == "bytes":
        return size(value)
    return duration(value) if unit == "seconds" else f"{value:,.2f} {unit}"


def percent(share: float) -> str:
    """A share with its sign, in percent."""
    return f"{100 * share:+.0f} %"


def short(digest: str) -> str:
    """The beginning of an id or digest, enough to tell it from others."""
    prefix, mark, rest = digest.rpartition("_")
    return f"{prefix}{mark}{rest[:10]}"


def metric(name: str) -> str:
    """A metric's name for people."""
    return METRIC_NAMES.get(name, name.replace("_", " "))


def ordered(values: Mapping[str, float]) -> list[tuple[str, float]]:
    """Scores in the order in which people read them."""
    order = list(METRIC_NAMES)
    return sorted(values.items(), key=lambda item: (order.index(item[0]) if item[0] in order else len(order), item[0]))


def gain(name: str, value: float, reference: float) -> float:
    """By how much a value is better than the reference, in the metric's unit."""
    return reference - value if name in LOWER_IS_BETTER else value - reference


def markdown(text: str) -> Markup:
    """Markdown as HTML; raw HTML in it is shown as text, images are left out."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.add_render_rule("image", lambda *_: "")
    # The parser escapes everything that the text holds.
    return Markup(parser.render(text))  # noqa: S704


class Renderer:
    """Renders pages."""

    def __init__(self) -> None:
        self._environment = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        for write in (when, number, score, duration, size, amount, percent, short, metric, ordered, gain, markdown):
            self._environment.filters[write.__name__] = write
        self._environment.globals["Action"] = Action

    def page(self, request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        """A page as the visitor may see it."""
        session: Session = request.state.session
        visitor: Visitor | None = getattr(request.state, "visitor", session.visitor)
        links = [(path, title) for path, title, action in NAVIGATION if visitor and visitor.may(action)]
        text = self._environment.get_template(template).render(
            {"failures": ()} | values, visitor=visitor, csrf=session.csrf, links=links, path=request.url.path
        )
        return HTMLResponse(text, status_code=status)
