"""The barrier with the analyzer of English, under the policy in force."""

import base64
from dataclasses import replace
from functools import partial

from sqlalchemy import Engine

from services.anonymization import wire
from services.anonymization.adapters.policies import SqlPolicies
from services.anonymization.policy.installed import CurrentPolicy, install_from_settings, make_parts
from services.anonymization.review.handlers import Review
from services.anonymization.review_rpc import ReplacedServicer
from services.anonymization.rpc import AnonymizationServicer
from services.anonymization.settings import Settings
from services.anonymization.surrogates.surrogates import Surrogates
from services.anonymization.vault.keyring import DRAW, Keyring
from tailor.api.anonymization.v1.anonymization_pb2_grpc import add_AnonymizationServiceServicer_to_server
from tailor.api.anonymization.v1.replaced_pb2_grpc import add_ReplacedServiceServicer_to_server
from tailor.rpc.server import RpcServer
from tests.analyzers import load_english
from tests.barrier import KEY, BarrierHouse, serve


class PolicyHouse(BarrierHouse):
    """The barrier with the analyzer of English, under the policy in force."""

    def __init__(self, engine: Engine) -> None:
        analyzer, key = load_english(), base64.b64encode(KEY).decode()
        super().__init__(engine, analyzer.lexicon)
        policies, settings = SqlPolicies(engine, Keyring(KEY)), Settings(quarantine_key=key, vault_key=key)
        install_from_settings(policies, settings, "detectors-1")
        self.surrogates = Surrogates(self.vault, self.lexicon, self.vault.secret(DRAW), self.subjects.suppressed)
        build = make_parts(
            analyzer, self.surrogates, self.vault, settings=settings, terms=self.terms, detectors="detectors-1"
        )
        self.current = CurrentPolicy(policies, build, partial(wire.announce, self.producer), "detectors-1")
        self.barrier = replace(self.barrier, anonymizer=self.current)
        self.review = Review(
            self.vault, self.terms, self.corpus, policy=lambda: self.current.policy, allow_terms=self.current.allow
        )

    def serve(self) -> RpcServer:
        """The services of texts and of replaced strings, on a port."""
        servicer = AnonymizationServicer(self.current, self.vault, self.subjects)
        return serve(
            (add_AnonymizationServiceServicer_to_server, servicer),
            (add_ReplacedServiceServicer_to_server, ReplacedServicer(self.review, self.current)),
        )
