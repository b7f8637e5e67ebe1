"""The residual statement: the report as JSON, to be signed for the records."""

import json
from datetime import UTC, datetime

from services.anonymization.review.domain import PASSAGE_CHARS, RARE_BELOW
from services.anonymization.review.estimates import METHOD, ResidualEstimate, ResidualShare
from services.anonymization.review.handlers import ResidualReport


def statement_body(report: ResidualReport, sources: tuple[str, ...], policy_digest: str, now: datetime) -> str:
    """The JSON to sign: ids, numbers and labels, no personal data."""
    assert report.draw is not None  # noqa: S101 - a report without a sample is not signed
    limit = report.limit
    content = {
        "kind": "tailor residual statement",
        "create_time": now.isoformat(timespec="seconds"),
        "sources": list(sources) or "all",
        "sample": {
            "id": report.draw.sample_id,
            "seed": report.draw.seed,
            "create_time": datetime.fromtimestamp(report.draw.time_ms / 1000, UTC).isoformat(timespec="seconds"),
        },
        "passage_characters": PASSAGE_CHARS,
        "passages_now": report.passages_now,
        "method": METHOD,
        "overall": _estimate(report.overall),
        "strata": [
            {"source": item.stratum.source, "language": item.stratum.language, **_estimate(item)}
            for item in report.strata
        ],
        "limit": None
        if limit is None
        else {"max_residual": limit.max_residual, "bound": limit.bound.value, "met": not report.refusal},
        "rare_combinations": {"fewer_documents_than": RARE_BELOW, "count": report.rare_combinations},
        "documents_masked_by_rules_only": dict(report.rules_only_documents),
        "policy_digest": policy_digest,
    }
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False)


def _estimate(item: ResidualEstimate) -> dict[str, object]:
    return {
        "passages": item.stratum.passages,
        "drawn": item.stratum.drawn,
        "reviewed": item.reviewed,
        "left": _share(item.any),
        "left_by_type": {kind: _share(share) for kind, share in item.types.items()},
        "values_by_type": dict(item.values),
    }


def _share(share: ResidualShare | None) -> dict[str, object] | None:
    if share is None:
        return None
    return {
        "passages": share.left,
        "share": round(share.share, 6),
        "interval_95": [round(share.low, 6), round(share.high, 6)],
    }
