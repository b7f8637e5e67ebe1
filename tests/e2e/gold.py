"""A search for the sample's personal data outside the raw zone."""

import json
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import grpc

from tailor.api.anonymization.v1 import anonymization_pb2
from tailor.api.anonymization.v1.anonymization_pb2_grpc import AnonymizationServiceStub
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import drafts_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.api.registry.v1.registry_pb2_grpc import RegistryServiceStub
from tailor.cli.connections import Connections, Endpoints
from tailor.cli.publish import publish_all
from tailor.cli.submissions import Description, collect
from tailor.client import TailorClient
from tests.conftest import plan_of
from tests.e2e.conftest import SAMPLE, Installation, ask_until
from tests.e2e.places import all_places, databases

# Places with anonymised texts. Values that no recogniser found can only be here.
TEXTS = ("corpus/", "datasets/", "drafts/", "reports/", "database evaluation.", "database synthetic.lessons")
# Places with surrogates. Two words drawn for one person may by chance be the name of another.
SURROGATES = tuple(f"database anonymization.{table}" for table in ("entries", "occurrences", "review_replaced"))
NAMES = ("PERSON", "CLIENT")
WORDS = re.compile(r"\w+")
DELIVERABLE = (
    "# Board memo\n\nPrepared for Wilhelmina Okonkwo-Barnes of Tattersall Brothers Foundry Ltd, who can be reached at "
    "wilhelmina.barnes@tattersall-foundry.example or +44 7700 900 415. The control envelope holds; pay GB33BUKB20201555555555.\n"
)
COMMENT = "Wilhelmina Okonkwo-Barnes (wilhelmina.barnes@tattersall-foundry.example) would never have written this."
TYPED = (
    "Wilhelmina Okonkwo-Barnes",
    "wilhelmina.barnes@tattersall-foundry.example",
    "+44 7700 900 415",
    "GB33BUKB20201555555555",
)


@dataclass(frozen=True)
class Leaks:
    """Only counts, because the values are personal.

    The number of places searched; the values found by type, and by type and kind of artefact; and those found outside texts by type and
    place.
    """

    places: int
    by_type: Counter[str]
    by_artefact: Counter[str]
    outside_texts: Counter[str]


def gold_values() -> dict[str, str]:
    """The type of every value in the sample's gold list, except one-word names, which may also be surrogates or common words."""
    gold = json.loads((SAMPLE / "gold.json").read_text(encoding="utf-8"))["documents"]
    values = {
        entry["value"]: entry["type"]
        for name, entries in gold.items()
        if name.startswith("documents/")
        for entry in entries
    }
    return {value: kind for value, kind in values.items() if kind not in NAMES or len(WORDS.findall(value)) > 1}


def _normal(text: str) -> str:
    return " ".join(text.split()).casefold()


def publish_sample(installation: Installation, folder: Path) -> int:
    """Publish the whole sample and a deliverable, and return the number of documents."""
    folder.joinpath("deliverable.md").write_text(DELIVERABLE, encoding="utf-8")
    labels = Description(source="archive", department="risk", confidentiality="internal")
    submissions = [
        *collect([SAMPLE / "documents"], Description()),
        *collect([folder], replace(labels, kind="deliverable")),
    ]
    return publish_all(Connections(Endpoints(installation.root)), submissions).total


def judge(installation: Installation, specialist: str) -> registry_pb2.RecordJudgementResponse:
    """Judge two of the specialist's drafts with a comment that names a person."""
    secret = installation.new_key(common_pb2.ROLE_EXPERT)
    address = installation.connection.service_addresses["inference"]
    with TailorClient(address, installation.operator_key) as client:
        drafts = [client.generate(specialist, f"Write memo {n} for {TYPED[0]}.", max_tokens=4).draft_id for n in (1, 2)]
    registry = RegistryServiceStub(installation.channel("registry", secret))
    rubric = drafts_pb2.Rubric(accuracy=3, style=3, usefulness=3)
    judgement = registry_pb2.RecordJudgementRequest(ranking=drafts, rubric=rubric, comment=COMMENT, request_id="judged")

    def recorded() -> registry_pb2.RecordJudgementResponse | None:
        try:
            return registry.RecordJudgement(judgement, timeout=60)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return None
            raise

    return ask_until(recorded, "a judgement", 60)


class Vault:
    """The vault's re-identification, with a data protection key."""

    def __init__(self, installation: Installation) -> None:
        secret = installation.new_key(common_pb2.ROLE_DATA_PROTECTION)
        self._stub = AnonymizationServiceStub(installation.channel("anonymization", secret))

    def is_anothers_surrogate(self, kind: str, value: str) -> bool:
        """True if the vault issued every word of the value for another word, so that it stands for somebody else."""
        request = anonymization_pb2.ReidentifyRequest(entity_type=kind, surrogate=value, purpose="search for leaks")
        try:
            true_value = self._stub.Reidentify(request, timeout=60).value
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return False
            raise
        return set(_normal(true_value).split()).isdisjoint(_normal(value).split())


def drawn_names(installation: Installation) -> list[str]:
    """The full names that the vault issued for people in documents."""
    tables = dict(databases(plan_of(installation.stack)))
    return re.findall(r',PERSON,"([^"]+)"', tables["database anonymization.occurrences"])


def leaks(installation: Installation, vault: Vault) -> Leaks:
    """Search everything for the sample's values, and for the values in the deliverable and the comment."""
    targets = {value: (kind, _normal(value)) for value, kind in (gold_values() | dict.fromkeys(TYPED, "TYPED")).items()}
    places: list[str] = []
    hits: list[tuple[str, str]] = []
    for place, text in all_places(
        plan_of(installation.stack), Connections(Endpoints(installation.root)).kafka_reader()
    ):
        places.append(place)
        searched = _normal(text)
        hits += [(value, place) for value, (_, normal) in targets.items() if normal in searched]
    # After the search, because re-identification writes the value to the audit log.
    hits = [
        (value, place)
        for value, place in hits
        if not (place in SURROGATES and vault.is_anothers_surrogate(targets[value][0], value))
    ]
    # Count an object by its bucket.
    found_values = {(value, place.partition("/")[0]) for value, place in hits}
    by_type = Counter(targets[value][0] for value in {value for value, _ in found_values})
    by_artefact = Counter(f"{targets[value][0]} in {artefact}" for value, artefact in found_values)
    outside = Counter(f"{targets[value][0]} in {place}" for value, place in hits if not place.startswith(TEXTS))
    return Leaks(len(places), by_type, by_artefact, outside)
