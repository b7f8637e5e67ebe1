"""Every method that a key can call is tried on objects outside of the key's reach, or names no object of a specialist."""

from collections.abc import Callable
from typing import Any

from tailor.api.common.v1 import common_pb2
from tailor.rpc.methods import all_methods, full_name
from tests.e2e.reach import CALLS, Names

# The calls that name no specialist and nothing of one.
WITHOUT_SPECIALIST = {
    "tailor.api.anonymization.v1.AnonymizationService/Anonymize": "a text of the caller's own",
    "tailor.api.anonymization.v1.AnonymizationService/PreviewAnonymization": "a text of the caller's own",
    "tailor.api.anonymization.v1.AnonymizationService/Reidentify": "a surrogate of the whole installation",
    "tailor.api.anonymization.v1.AnonymizationService/ResolveSubject": "a person of the whole installation",
    "tailor.api.anonymization.v1.AnonymizationService/LiftSubject": "a person of the whole installation",
    "tailor.api.anonymization.v1.PolicyService/CheckPolicy": "a policy of the caller's own, or the installation's",
    "tailor.api.anonymization.v1.PolicyService/ComparePolicies": "policies and a text of the caller's own",
    "tailor.api.anonymization.v1.PolicyService/ApplyPolicy": "the policy of the whole installation",
    "tailor.api.anonymization.v1.PolicyService/ListPolicies": "policies of the whole installation",
    "tailor.api.anonymization.v1.SubjectService/DescribeSubject": "a person of the whole installation",
    "tailor.api.anonymization.v1.ReplacedService/ListReplaced": "surrogates of the whole installation",
    "tailor.api.anonymization.v1.ReplacedService/GetReplaced": "a string of the whole installation",
    "tailor.api.anonymization.v1.ReplacedService/DecideReplaced": "a string of the whole installation",
    "tailor.api.anonymization.v1.ReviewService/DrawSample": "passages of the whole installation",
    "tailor.api.anonymization.v1.ReviewService/NextPassage": "passages of the whole installation",
    "tailor.api.anonymization.v1.ReviewService/DecidePassage": "a passage",
    "tailor.api.anonymization.v1.ReviewService/UndoDecision": "the caller's own decision",
    "tailor.api.anonymization.v1.ReviewService/DropTerm": "a term of the whole installation",
    "tailor.api.anonymization.v1.ReviewService/GetResidualReport": "figures by source of the whole installation",
    "tailor.api.anonymization.v1.ReviewService/ListRareCombinations": "documents of the whole installation",
    "tailor.api.anonymization.v1.ReviewService/GetPassage": "a document has labels, and no specialist",
    "tailor.api.anonymization.v1.ReviewService/SignStatement": "figures by source of the whole installation",
    "tailor.api.anonymization.v1.ReviewService/VerifyStatement": "a statement that the caller has",
    "tailor.api.events.v1.EventService/GetEventStatus": "a replica of a service",
    "tailor.api.events.v1.EventService/ListDeadLetters": "events of the whole installation, without their values",
    "tailor.api.events.v1.EventService/ReplayDeadLetter": "an event of the whole installation",
    "tailor.api.events.v1.EventService/SkipEvent": "an event of the whole installation",
    "tailor.api.inference.v1.InferenceService/ListSpecialists": "lists those of the key",
    "tailor.api.ingestion.v1.IngestionService/GetSubmission": "a document of the caller's own, and no specialist",
    "tailor.api.ingestion.v1.IngestionService/SubmitDocument": "a document has labels, and no specialist",
    "tailor.api.ingestion.v1.ReplayService/StartReplay": "documents of the whole installation",
    "tailor.api.ingestion.v1.ReplayService/GetReplay": "a replay of the whole installation",
    "tailor.api.ingestion.v1.ReplayService/ListReplays": "replays of the whole installation",
    "tailor.api.ingestion.v1.ReplayService/CancelReplay": "a replay of the whole installation",
    "tailor.api.ingestion.v1.ReplayService/ListReplayDocuments": "documents of the whole installation",
    "tailor.api.registry.v1.LineageService/ListLearners": "lists those of the key",
    "tailor.api.registry.v1.ObjectService/VerifyObjects": "objects of the whole installation",
    "tailor.api.registry.v1.PeopleService/ListPeople": "people of the whole installation",
    "tailor.api.registry.v1.PeopleService/RemovePerson": "a person",
    "tailor.api.registry.v1.PeopleService/RenewInvitation": "a person",
    "tailor.api.registry.v1.RegistryService/ListSpecialists": "lists those of the key",
    "tailor.api.registry.v1.RegistryService/GetFlow": "counts of the whole installation",
    "tailor.api.registry.v1.RegistryService/ListKeys": "keys of the whole installation",
    "tailor.api.registry.v1.RegistryService/RevokeKey": "a key",
    "tailor.api.registry.v1.RegistryService/Erase": "documents of the whole installation",
    "tailor.api.registry.v1.RegistryService/LiftErasure": "a document",
    "tailor.api.registry.v1.RegistryService/GetErasure": "an erasure of the whole installation",
    "tailor.api.registry.v1.RegistryService/ListErasures": "erasures of the whole installation",
    "tailor.api.synthetic.v1.ImportService/ListImports": "lists those of the key",
    "tailor.api.training.v1.TrainingService/AddBase": "a base of the whole installation",
    "tailor.api.training.v1.TrainingService/ListBases": "bases of the whole installation",
}


class Recorder:
    """A channel that notes the methods that a stub has, and gives each its own name."""

    def _method(self, path: str, **_: Any) -> Callable[[], str]:
        return lambda: path.removeprefix("/")

    unary_unary = unary_stream = stream_unary = stream_stream = _method


def test_every_method_of_a_key_is_tried_or_names_nothing_of_a_specialist() -> None:
    channel: Any = Recorder()
    tried = {method() for _, calls in CALLS for _, method, _ in calls(channel, Names())}
    callable_by_keys = {
        full_name(method)
        for method in all_methods()
        if (access := method.GetOptions().Extensions[common_pb2.access]).roles or access.any_authenticated
    }
    assert tried <= callable_by_keys
    assert callable_by_keys - tried == WITHOUT_SPECIALIST.keys()
