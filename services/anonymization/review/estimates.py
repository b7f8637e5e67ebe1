"""The residual estimate: the share of passages in which something is left, with an interval, from a stratified random sample."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from scipy.special import betaincinv

from services.anonymization.review.domain import (
    MIN_REVIEWED,
    ResidualBound,
    ResidualLimit,
    SampleDraw,
    Stratum,
    StratumResult,
)
from tailor.errors import FailedPrecondition, Reason

CONFIDENCE = 0.95
METHOD = (
    "Stratified simple random sample of passages without replacement; share weighted by the strata's passages; 95 % interval of "
    "Clopper and Pearson (1934) for the effective sample size of Korn and Graubard (1998), at most Kish's (1965)."
)


@dataclass(frozen=True)
class ResidualShare:
    """A share with its interval. `left` is the number of reviewed passages."""

    left: int
    share: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.share:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"


@dataclass(frozen=True)
class ResidualEstimate:
    """The estimate of one stratum, or of several, without `source` and `language`. `any` is None if nothing was reviewed."""

    stratum: Stratum
    reviewed: int = 0
    any: ResidualShare | None = None
    types: Mapping[str, ResidualShare] = field(default_factory=dict)
    values: Mapping[str, int] = field(default_factory=dict)


def clopper_pearson(left: float, reviewed: float) -> tuple[float, float]:
    """The exact 95 % interval of a binomial share (Clopper and Pearson, Biometrika 26, 1934). Both numbers may be fractions.

    It covers at least 95 %; for a sample that is a large part of all passages it is wider than it need be.
    """
    tail = (1 - CONFIDENCE) / 2
    low = 0.0 if left <= 0 else float(betaincinv(left, reviewed - left + 1, tail))
    high = 1.0 if left >= reviewed else float(betaincinv(left + 1, reviewed - left, 1 - tail))
    return low, high


def weighted_share(strata: Iterable[tuple[int, int, int]]) -> ResidualShare | None:
    """The share over strata, each given as (passages, reviewed, left). Strata without a reviewed passage do not count; None if all are so.

    Each stratum's share is weighted by its passages. The interval is that of Clopper and Pearson for the effective sample size
    p (1 - p) / var(p) of Korn and Graubard (Survey Methodology 24, 1998). A stratum in which nothing was left has no visible variance,
    so the size is at most Kish's 1 / sum(W^2 / n) (Survey Sampling, 1965). For one stratum, both are the reviewed passages.
    """
    known = [(passages, reviewed, left) for passages, reviewed, left in strata if reviewed]
    if not known:
        return None
    whole = sum(passages for passages, _, _ in known)
    weights = [passages / whole for passages, _, _ in known]
    shares = [left / reviewed for _, reviewed, left in known]
    share = sum(weight * part for weight, part in zip(weights, shares, strict=True))
    size = 1 / sum(weight**2 / reviewed for weight, (_, reviewed, _) in zip(weights, known, strict=True))
    variance = sum(
        weight**2 * part * (1 - part) / reviewed
        for weight, part, (_, reviewed, _) in zip(weights, shares, known, strict=True)
    )
    if variance > 0:
        size = min(size, share * (1 - share) / variance)
    low, high = clopper_pearson(share * size, size)
    return ResidualShare(sum(left for _, _, left in known), share, low, high)


def estimate(results: Sequence[StratumResult], source: str = "", language: str = "") -> ResidualEstimate:
    """The estimate over all given strata, under a name."""
    types = sorted({kind for result in results for kind in result.left_by_type})
    passages = sum(result.stratum.passages for result in results)
    drawn = sum(result.stratum.drawn for result in results)
    return ResidualEstimate(
        stratum=Stratum(source, language, passages, drawn),
        reviewed=sum(result.reviewed for result in results),
        any=weighted_share((result.stratum.passages, result.reviewed, result.left) for result in results),
        types={kind: share for kind in types if (share := _share_of_type(results, kind)) is not None},
        values={kind: sum(result.values.get(kind, 0) for result in results) for kind in types},
    )


def _share_of_type(results: Sequence[StratumResult], kind: str) -> ResidualShare | None:
    return weighted_share(
        (result.stratum.passages, result.reviewed, result.left_by_type.get(kind, 0)) for result in results
    )


def results_of(draw: SampleDraw, sources: Sequence[str]) -> list[StratumResult]:
    """The results of the sources' strata, all if none is named; the largest stratum first."""
    wanted = [result for result in draw.results if not sources or result.stratum.source in sources]
    return sorted(wanted, key=lambda result: (-result.stratum.passages, result.stratum.source, result.stratum.language))


def check_limit(limit: ResidualLimit, draw: SampleDraw | None, sources: Sequence[str]) -> None:
    """Raises FailedPrecondition (RESIDUAL_UNKNOWN, RESIDUAL_TOO_HIGH) with what to do unless the sources' estimate meets the limit.

    Every stratum of the sources must have been reviewed, and every named source sampled.
    """
    results = results_of(draw, sources) if draw else []
    sampled = {result.stratum.source for result in results}
    unknown = [source for source in sources if source not in sampled]
    unseen = [result.stratum for result in results if not result.reviewed]
    total = estimate(results) if results else None
    if total is None or total.any is None or unknown:
        named = ", ".join(unknown) or "these documents"
        raise _unknown(f"nothing was reviewed of {named}")
    if unseen:
        raise _unknown(f"nothing was reviewed of {', '.join(map(_name, unseen))}")
    if total.reviewed < min(MIN_REVIEWED, total.stratum.drawn):
        raise _unknown(f"only {total.reviewed} of {total.stratum.drawn} sampled passages were reviewed")
    value = total.any.high if limit.bound is ResidualBound.UPPER else total.any.share
    if value > limit.max_residual:
        compared = "upper bound" if limit.bound is ResidualBound.UPPER else "estimate"
        raise FailedPrecondition(
            Reason.RESIDUAL_TOO_HIGH,
            f"The barrier left something in {total.any} of the passages; the {compared} is over the limit of "
            f"{100 * limit.max_residual:.1f} % (TAILOR_MAX_RESIDUAL). "
            "Improve the policy, pass the documents again, then draw and review a new sample.",
        )


def _unknown(problem: str) -> FailedPrecondition:
    return FailedPrecondition(
        Reason.RESIDUAL_UNKNOWN,
        f"TAILOR_MAX_RESIDUAL limits what may be left in documents that are trained on, but {problem}. Draw a sample with "
        "`tailor review sample`, and review it at /review.",
    )


def _name(stratum: Stratum) -> str:
    return f"{stratum.source or 'no source'} ({stratum.language or 'unknown language'})"
