"""Templates and their filters. Templates escape every value."""

import math
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from google.protobuf.timestamp_pb2 import Timestamp
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from markupsafe import Markup

from services.console import rules
from services.console.domain import Permission, Visitor
from services.console.web.navigation import Navigation, make_navigation
from services.console.web.sessions import BrowserSession
from tailor.api.anonymization.v1 import review_pb2
from tailor.api.events.v1 import models_pb2
from tailor.wire import to_datetime
from tailor.word_diff import DiffPiece, diff_words

HERE = Path(__file__).parent
SIZES = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))
METRIC_NAMES = {
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "bleu": "BLEU",
    "log_likelihood": "Log-likelihood (nats per token)",
    "terms": "House terms F1",
    "perplexity": "Perplexity",
    "parity": "Parity (nats per token)",
    "held_out_loss": "Held-out loss",
    "reward_accuracy": "Reward accuracy",
    "pair_margin": "Pair margin (nats per token)",
    "win_rate": "Win rate",
    "kl": "KL",
}


def time(stamp: Timestamp) -> str:
    """A time in UTC, to the minute; a dash if it is not set."""
    return to_datetime(stamp).strftime("%Y-%m-%d %H:%M") if stamp.ToNanoseconds() else "–"


def number(value: float) -> str:
    """A number with thousands separators and at most four significant digits."""
    if isinstance(value, int) or float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.4g}"


def score(value: float) -> str:
    """A score with three decimals."""
    return f"{value:.3f}"


def figure(value: float) -> str:
    """A reported figure with four significant digits."""
    return f"{value:.4g}"


def duration(seconds: float) -> str:
    """Seconds in the largest unit that fits."""
    for size, unit in UNITS:
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"


def size(count: float) -> str:
    """Bytes in the largest unit that fits."""
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


def share(value: float) -> str:
    """A share of a whole, in percent."""
    return f"{100 * value:.1f} %"


def short(digest: str) -> str:
    """The beginning of an id or digest, long enough to recognise it."""
    prefix, mark, rest = digest.rpartition("_")
    return f"{prefix}{mark}{rest[:10]}"


def density(findings: int, characters: int) -> float:
    """Findings per 1,000 characters."""
    return 1000 * findings / characters if characters else 0.0


def short_method(name: str) -> str:
    """A full method name without its package."""
    return name.rpartition(".")[2]


def metric(name: str) -> str:
    """A metric's display name."""
    return METRIC_NAMES.get(name, name.replace("_", " "))


def ordered(values: Mapping[str, float]) -> list[tuple[str, float]]:
    """Scores in display order."""
    order = list(METRIC_NAMES)
    return sorted(values.items(), key=lambda item: (order.index(item[0]) if item[0] in order else len(order), item[0]))


def interval(estimate: models_pb2.Estimate, sign: str = "") -> str:
    """A value with its 95 % interval; with `+` as sign, the value of a gain."""
    if not math.isfinite(estimate.high - estimate.low):
        return "–" if math.isnan(estimate.value) else f"{estimate.value:{sign}.3f} (no interval)"
    return f"{estimate.value:{sign}.3f} ({estimate.low:{sign}.3f} to {estimate.high:{sign}.3f})"


def residual(estimate: review_pb2.ResidualEstimate) -> str:
    """What was left: `20 of 400 left: 5.0 % [3.1, 7.6]`."""
    if not estimate.HasField("any"):
        return f"none of {estimate.drawn} reviewed"
    return f"{estimate.any.left} of {estimate.reviewed} left: {residual_share(estimate.any)}"


def residual_share(value: review_pb2.ResidualShare) -> str:
    """A share of passages with its 95 % interval, in percent."""
    return f"{100 * value.share:.1f} % [{100 * value.low:.1f}, {100 * value.high:.1f}]"


def certainty(estimate: models_pb2.Estimate) -> str:
    """`up` or `down` if the whole interval of a gain is on one side of zero, else `muted`."""
    return "up" if estimate.low > 0 else "down" if estimate.high < 0 else "muted"


def diff(first: str, second: str) -> list[DiffPiece]:
    """The pieces in which two texts differ, word by word."""
    return list(diff_words(first, second))


def _align(parser: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType) -> str:
    """A table's cell with its alignment as a class: the page's security policy refuses inline styles."""
    token = tokens[index]
    if token.attrs.pop("style", None) == "text-align:right":
        token.attrSet("class", "n")
    return parser.renderToken(tokens, index, options, env)


def markdown(text: str) -> Markup:
    """Markdown as HTML without inline styles; tables scroll. Raw HTML is shown as text; images are left out."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.add_render_rule("image", lambda *_: "")
    for name in ("th_open", "td_open"):
        parser.add_render_rule(name, _align)
    parser.add_render_rule("table_open", lambda *_: '<div class="scroll" tabindex="0"><table>\n')
    parser.add_render_rule("table_close", lambda *_: "</table></div>\n")
    html = parser.render(text)
    # The parser escapes the text.
    return Markup(html)  # noqa: S704  # nosec B704


FILTERS = (
    *(
        time,
        number,
        score,
        figure,
        duration,
        size,
        amount,
        percent,
        share,
        short,
        short_method,
        density,
        metric,
        ordered,
        interval,
        residual,
        residual_share,
        certainty,
        diff,
        markdown,
    ),
    *(
        rules.word,
        rules.code,
        rules.decision,
        rules.word_of_verdict,
        rules.list_models,
        rules.list_gate,
        rules.pipeline,
        rules.key_state,
        rules.person_state,
        rules.list_filters,
        rules.list_row_limits,
        rules.list_sampling,
        rules.list_evaluation,
        rules.is_ended,
        rules.stage_state,
    ),
)


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
        self._environment.filters |= {function.__name__: function for function in FILTERS}
        self._environment.globals |= {"Permission": Permission, "new_attempt": lambda: secrets.token_hex(16)}

    def page(self, request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        """A page with the visitor's own navigation."""
        session: BrowserSession = request.state.session
        visitor: Visitor | None = getattr(request.state, "visitor", None)
        navigation = make_navigation(visitor, request.url.path) if visitor else Navigation()
        text = self._environment.get_template(template).render(
            {"failures": ()} | values, visitor=visitor, csrf=session.csrf, navigation=navigation
        )
        return HTMLResponse(text, status_code=status)
