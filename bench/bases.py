"""Every causal class that transformers knows, and the text parts of others, through adding, training and verifying: `make bench-bases`.

Besides, every chat template that trl ships (`bases_templates.py`). Writes `docs/bases.md` and `.tailor/bench/bases.json`. What was found of a family is kept until the code that it went through changes, so
an interrupted bench goes on.
"""

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any

from bench import base_moves
from bench.bases_family import FamilyFound
from bench.bases_templates import describe_templates, summarise_templates, try_templates
from bench.report import ROOT, read_figures, store
from services.training.bases.capabilities import TOLERANCE
from tailor.codec import load

KEPT = ROOT / ".tailor" / "bench" / "bases"
PAGE = ROOT / "docs" / "bases.md"
CODE = ("services/training", "services/inference/adapters", "tailor", "bench/bases_family.py")
AT_ONCE = 2
SECONDS = 300
MEMORY_BYTES = 12 * 2**30
TRIED = "not tried here"
TEMPLATES = "## Chat templates"


def list_families() -> list[tuple[str, str]]:
    """The families with a causal class, and those whose text part has one, by the name of their configuration, with the class."""
    from transformers import AutoConfig
    from transformers.models.auto import modeling_auto as auto

    causal = {family: name for family, name in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items() if isinstance(name, str)}
    whole = {}
    for family, name in auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.items():
        if str(name).endswith("ForConditionalGeneration"):
            try:
                text = AutoConfig.for_model(family).get_text_config().model_type
            except (ImportError, ValueError, AttributeError):
                continue
            if text in causal and text != family:
                whole[family] = str(name)
    return sorted({**causal, **whole}.items())


def digest_code() -> str:
    """A digest of the code that a family goes through, and of the libraries' versions."""
    digest = hashlib.sha256(" ".join(version(name) for name in ("transformers", "peft", "trl", "torch")).encode())
    for place in CODE:
        path = ROOT / place
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.read_bytes())
    return digest.hexdigest()


def try_one(family: str, name: str, code: str, *, wanted: bool) -> FamilyFound:
    """What was found of a family, now or before with the same code. One that is not wanted now is not tried."""
    file = KEPT / f"{family}.json"
    kept: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if kept.get("code") != code and not wanted:
        return FamilyFound(family, name, made=TRIED)
    if kept.get("code") != code:
        kept = {"code": code, **_run(family, name)}
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    return load(FamilyFound, kept)


def measure_moves(code: str) -> dict[str, Any]:
    """The figures of a specialist's move to another real base and back, now or before with the same code."""
    file = KEPT.with_name("bases-moves.json")
    kept: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if kept.get("code") != code:
        kept = {"code": code, **base_moves.measure()}
        file.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    return kept


def _run(family: str, name: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                [sys.executable, "-m", "bench.bases_family", family, name, folder],
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
                preexec_fn=_limit,
            )
        except subprocess.TimeoutExpired:
            return {"family": family, "name": name, "made": f"not within {SECONDS} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return {"family": family, "name": name, "made": f"the process ended with {done.returncode}"}
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def works(found: FamilyFound) -> bool:
    """True if a tiny base of the family went the whole way."""
    return found.verified == "yes"


def summarise(all_found: Sequence[FamilyFound]) -> dict[str, Any]:
    """The bench's figures."""
    tried = [found for found in all_found if found.made == "yes"]
    working = [found for found in tried if works(found)]
    return {
        "families": len(tried),
        "not_tried": len(all_found) - len(tried),
        "works": len(working),
        "refused_at_add": {found.family: found.added for found in tried if found.added != "yes"},
        "trained_then_refused": sum(found.trained == "yes" and not works(found) for found in tried),
        "refused_in_the_plan": {found.family: found.not_served for found in tried if found.not_served},
        "not_trained": {
            found.family: found.trained
            for found in tried
            if found.added == "yes" and found.trained != "yes" and not found.not_served
        },
        "packed": sum(found.packed for found in working),
        "packed_difference": max((found.packed_difference for found in working), default=0.0),
        "attention_difference": max((found.attention_difference for found in working), default=0.0),
    }


def write_page(all_found: Sequence[FamilyFound], figures: dict[str, Any]) -> None:
    """Write docs/bases.md."""
    PAGE.write_text("\n".join(_lines(all_found, figures)) + "\n", encoding="utf-8")


def _lines(all_found: Sequence[FamilyFound], figures: dict[str, Any]) -> Iterator[str]:
    yield "# Bases"
    yield ""
    yield (
        f"`make bench-bases` takes a tiny base of each family that transformers {version('transformers')} knows through adding, training and "
        "what inference verifies, and writes this page. A tiny base has the family's own code and random weights: what is computed rightly here "
        "is computed rightly by the base, which tells nothing of its quality. Families with a text part among others (images, sound) are added as "
        "their text part."
    )
    yield ""
    yield (
        f"{figures['families']} families were tried, {figures['works']} go the whole way, {len(figures['refused_at_add'])} are refused when "
        f"they are added, of {len(figures['refused_in_the_plan'])} vLLM as it is installed here serves no adapters, "
        f"{figures['not_tried']} are not tried, or no tiny base of them could be made. The largest difference of "
        f"attention is {figures['attention_difference']:.1e}, of packed rows {figures['packed_difference']:.1e} standard deviations of the "
        f"logits (bound {TOLERANCE:.0e})."
    )
    yield ""
    if "moves" in figures:
        there = ", then ".join(
            f"{base} ({move['decision']}, {move['seconds']} s)" for base, move in figures["moves"].items()
        )
        yield (
            f"The demo's specialist, which began on {next(reversed(figures['moves']))}, moved to {there}, with the gate's verdict and the seconds of each move. "
            f"{sum(figures['moves_answers'].values())} calls were answered meanwhile, {figures['moves_failed_calls']} failed."
        )
        yield ""
    yield "| family | class | added | attention | rows | adapted layers | trained | served |"
    yield "|---|---|---|---|---|---|---|---|"
    for found in all_found:
        trained = f"refused in the plan: {found.not_served}" if found.not_served else found.trained
        cells = (found.added, found.attention, _rows(found), " ".join(found.targets), trained, found.verified)
        if found.made != "yes":
            cells = (TRIED, "", "", "", "", "")
        yield f"| {found.family} | {found.name} | {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _rows(found: FamilyFound) -> str:
    if not found.attention:
        return ""
    return "packed" if found.packed else "one by one"


def main() -> None:
    """Try all families, or those that are named, and all templates, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--families", default="", help="only these names, with commas between them, and those that were tried before"
    )
    parser.add_argument("--templates", action="store_true", help="only the chat templates, which take a minute")
    arguments = parser.parse_args()
    if not arguments.templates:
        walk_families({name for name in arguments.families.split(",") if name})
    outcomes = try_templates()
    figures = summarise_templates(outcomes)
    print(json.dumps(figures, indent=2))
    store("bases", {**read_figures("bases"), **figures})
    write_templates(outcomes)


def write_templates(outcomes: Mapping[str, str]) -> None:
    """Write the section about templates at the end of docs/bases.md."""
    families = PAGE.read_text(encoding="utf-8").partition(TEMPLATES)[0].rstrip()
    PAGE.write_text(f"{families}\n\n{TEMPLATES}\n\n{describe_templates(outcomes)}\n", encoding="utf-8")


def walk_families(chosen: Collection[str]) -> None:
    """Try all families, or those that are chosen, and write their part of the page and of the figures."""
    code = digest_code()
    families = list_families()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        all_found = []
        tried = pool.map(lambda each: try_one(each[0], each[1], code, wanted=not chosen or each[0] in chosen), families)
        for found in tried:
            all_found.append(found)
            if found.made != TRIED:
                print(f"{len(all_found)}/{len(families)} {found.family}: {_say(found)}", flush=True)
    figures = summarise(all_found) | ({} if chosen else measure_moves(code))
    print(json.dumps(figures, indent=2))
    store("bases", figures)
    write_page(all_found, figures)


def _say(found: FamilyFound) -> str:
    return next((step for step in (found.made, found.added, found.trained, found.verified) if step != "yes"), "works")


if __name__ == "__main__":
    main()
