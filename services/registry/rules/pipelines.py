"""Which pipelines a specialist may have, and how far its experts are from the next round. Training runs the pipeline."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from services.registry.domain import Draft, Specialist
from tailor.pipelines import PIPELINES, SFT, learns_from_rankings
from tailor.rounds import RoundProgress, is_held_out, measure_progress

SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def find_pipeline_violations(specialist: Specialist) -> dict[str, str]:
    """Violations by field; empty for a valid pipeline."""
    violations = {}
    if specialist.stages and specialist.stages not in PIPELINES:
        known = ", ".join(str([*pipeline]) for pipeline in PIPELINES)
        violations["stages"] = f"must be one of {known}"
    for stage, recipe in sorted(specialist.recipes.items()):
        if stage == SFT:
            violations[f"recipes.{stage}"] = "must be set as `recipe`"
        elif stage not in specialist.stages:
            violations[f"recipes.{stage}"] = "must be one of `stages`"
        elif not SLUG.fullmatch(recipe):
            violations[f"recipes.{stage}"] = "must be a slug of a-z, 0-9 and '-'"
    if specialist.rebuild.min_ranked_prompts < 0:
        violations["rebuild.min_ranked_prompts"] = "must be 0 (as many as hold out enough) or more"
    return violations


def measure_round(
    specialist: Specialist, pairs: Iterable[tuple[str, str]], drafts: Mapping[str, Draft]
) -> RoundProgress | None:
    """Progress towards the next round by the pairs of drafts so far, the better one first.

    None if the pipeline does not learn from rankings.
    """
    if not learns_from_rankings(specialist.pipeline):
        return None
    prompts = find_ranked_prompts(specialist.name, pairs, drafts)
    percent = specialist.rows.held_out_percent
    held_out = sum(is_held_out(prompt, percent) for prompt in prompts)
    minimum = specialist.rebuild.min_ranked_prompts
    return measure_progress(len(prompts), held_out, min_ranked_prompts=minimum, percent=percent)


def find_ranked_prompts(name: str, pairs: Iterable[tuple[str, str]], drafts: Mapping[str, Draft]) -> set[str]:
    """Prompts with two different stored drafts of the specialist of which most experts preferred the same one, by digest."""
    votes: Counter[tuple[str, str, str]] = Counter()
    usable = {key: draft for key, draft in drafts.items() if draft.text is not None and draft.specialist == name}
    for better, worse in ((usable.get(first), usable.get(second)) for first, second in pairs):
        if better is None or worse is None or better.prompt_digest != worse.prompt_digest:
            continue
        if better.answer_digest != worse.answer_digest:
            first, second = sorted((better.answer_digest, worse.answer_digest))
            votes[better.prompt_digest, first, second] += 1 if better.answer_digest == first else -1
    return {prompt for (prompt, _, _), lead in votes.items() if lead}
