"""The services over gRPC, and how long their calls may take."""

from collections.abc import Mapping

import grpc

from services.console.ports import Services
from services.console.settings import Settings
from tailor.rpc.channel import service_channel, with_deadlines

# Of reads and short writes: all methods that SECONDS does not name.
DEFAULT_SECONDS = 4.0
COUNTS = (
    "CompareEvaluations", "CountNearDuplicates", "GetAudit", "GetLeaderboard", "GetReplaced", "GetResidualReport",
    "ListRareCombinations", "ListReplaced", "ListRows", "ProposeGuidelines", "SignStatement",
)  # fmt: skip
WRITES = (
    "AdmitOrigin", "ApproveAdapter", "ApproveRun", "CancelRun", "CreateKey", "CreateRun", "CreateSpecialist", "DeclineAdapter",
    "DeleteSpecialist", "Evaluate", "PinEntry", "PlanRun", "Promote", "RecordJudgement", "ReviewSamples", "RevokeKey", "Rollback",
    "StartCanary", "StopCanary", "UpdateSpecialist",
)  # fmt: skip
SECONDS: Mapping[str, float] = {
    "Check": 1.5,
    **dict.fromkeys(COUNTS, 15.0),
    # Anonymization processes the comment of a judgement, or the reason of a decision, first.
    **dict.fromkeys(WRITES, 30.0),
    # Waits until the policy has reached ingestion.
    "StartReplay": 15.0,
    # The text passes the barrier, and the registry learns of the draft.
    "EditDraft": 40.0,
    # Builds what applies a new policy.
    "DecideReplaced": 60.0,
    # Reads the size of every document.
    "DrawSample": 120.0,
    "StreamGenerate": 180.0,
    "RegenerateDraft": 180.0,
    "DrawPrompt": 220.0,
    # The browser reconnects afterwards.
    "WatchRun": 3600.0,
}


def open_channels(settings: Settings) -> dict[str, grpc.Channel]:
    """The channels of the services by name, at the addresses of the settings."""
    addresses = {
        "ingestion": settings.ingestion_address,
        "anonymization": settings.anonymization_address,
        "synthetic": settings.synthetic_address,
        "training": settings.training_address,
        "evaluation": settings.evaluation_address,
        "registry": settings.registry_address,
        "inference": settings.inference_address,
    }
    return {name: service_channel(settings, name, address, service="console") for name, address in addresses.items()}


def connect(channels: Mapping[str, grpc.Channel]) -> Services:
    """The services behind their channels."""
    limited = {name: with_deadlines(channel, name, SECONDS, DEFAULT_SECONDS) for name, channel in channels.items()}
    return Services(limited)
