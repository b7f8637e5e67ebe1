"""What operators change and decide: definitions, overrides, approvals, and pins of leaderboards.

The registry admits the console itself to these calls, so the console refuses what the registry would refuse to the visitor's own key, and
names the visitor's key, which stays on record.
"""

from services.console.domain import Permission, Visitor
from services.console.handlers import ServiceAnswer, call, list_specialists, require_adapter
from services.console.ports import Services
from tailor.api.evaluation.v1.evaluation_pb2 import CompareEvaluationsRequest, CompareEvaluationsResponse
from tailor.api.events.v1.models_pb2 import SpecialistChanged, SpecialistServing
from tailor.api.registry.v1.panel_pb2 import ProposeGuidelinesResponse
from tailor.api.registry.v1.registry_pb2 import (
    GetLeaderboardResponse,
    GetSpecialistResponse,
    UpdateSpecialistResponse,
)
from tailor.api.synthetic.v1.synthesis_pb2 import CountCommentsResponse
from tailor.errors import NotFound, Reason


def get_specialist(services: Services, visitor: Visitor, name: str) -> GetSpecialistResponse:
    """A specialist. Raises NotFound if it is unknown or not visible to the visitor, Unavailable without the registry."""
    answer = list_specialists(services, visitor)
    specialist = next((item for item in answer.value if item.specialist.name == name), None)
    if specialist is None:
        message = answer.failure.message if answer.failure else "This specialist does not exist, or you may not use it."
        raise NotFound(Reason.UNKNOWN_SPECIALIST, message)
    return specialist


def create_specialist(services: Services, visitor: Visitor, definition: SpecialistChanged, attempt: str) -> bool:
    """Define a specialist; False if it existed with the same definition. Raises AlreadyExists, InvalidArgument by field."""
    visitor.require(Permission.MANAGE_SPECIALISTS)
    visitor.require_specialist(definition.name)
    return services.operations.create_specialist(definition, attempt).created


def update_specialist(
    services: Services, visitor: Visitor, definition: SpecialistChanged, *, validate_only: bool
) -> UpdateSpecialistResponse:
    """Replace a definition, or only show the changes. Raises Aborted unless its revision is the current one, InvalidArgument by field."""
    visitor.require(Permission.MANAGE_SPECIALISTS)
    visitor.require_specialist(definition.name)
    return services.operations.update_specialist(definition, validate_only=validate_only)


def propose_guidelines(services: Services, visitor: Visitor, name: str) -> ServiceAnswer[ProposeGuidelinesResponse]:
    """What experts' comments ask for again and again. Raises NotFound for a specialist that is not visible to the visitor."""
    visitor.require(Permission.MANAGE_SPECIALISTS)
    visitor.require_specialist(name)
    return call("registry", lambda: services.panel.propose_guidelines(name), ProposeGuidelinesResponse())


def count_comments(services: Services, visitor: Visitor, name: str) -> ServiceAnswer[CountCommentsResponse]:
    """What became of a specialist's comments. Raises NotFound for a specialist that is not visible to the visitor."""
    visitor.require(Permission.SYNTHESES)
    visitor.require_specialist(name)
    return call("synthetic", lambda: services.syntheses.count_comments(name), CountCommentsResponse())


def delete_specialist(services: Services, visitor: Visitor, name: str, reason: str) -> None:
    """Delete a specialist. Idempotent."""
    visitor.require(Permission.MANAGE_SPECIALISTS)
    visitor.require_specialist(name)
    services.operations.delete_specialist(name, reason, visitor.key_id)


def override(  # noqa: PLR0917 - fields of a form
    services: Services, visitor: Visitor, specialist: str, digest: str, generation: int, reason: str
) -> SpecialistServing:
    """Make an adapter serve although it did not pass the gate. Raises Aborted unless `generation` is the current one."""
    visitor.require(Permission.PROMOTE)
    visitor.require_specialist(specialist)
    return services.operations.override(specialist, digest, generation, reason, visitor.key_id)


def approve(services: Services, visitor: Visitor, digest: str, reason: str) -> SpecialistServing:
    """Let a waiting adapter serve, or start its canary. Raises NotFound if it is not visible to the visitor."""
    visitor.require(Permission.PROMOTE)
    require_adapter(services, visitor, digest)
    return services.operations.approve(digest, reason, visitor.key_id)


def decline(services: Services, visitor: Visitor, digest: str, reason: str) -> None:
    """End an adapter's wait. Raises NotFound if it is not visible to the visitor."""
    visitor.require(Permission.PROMOTE)
    require_adapter(services, visitor, digest)
    services.operations.decline(digest, reason, visitor.key_id)


def get_leaderboard(
    services: Services, visitor: Visitor, specialist: str, metric: str
) -> ServiceAnswer[GetLeaderboardResponse | None]:
    """A specialist's leaderboard. Raises NotFound if it is not visible to the visitor."""
    visitor.require_specialist(specialist)
    return call("registry", lambda: services.operations.get_leaderboard(specialist, metric), None)


def pin_entry(services: Services, visitor: Visitor, specialist: str, entry: str, *, pinned: bool) -> None:
    """Pin an entry of a leaderboard, or stop."""
    visitor.require(Permission.PROMOTE)
    visitor.require_specialist(specialist)
    services.operations.pin_entry(specialist, entry, pinned=pinned)


def compare_evaluations(
    services: Services, visitor: Visitor, request: CompareEvaluationsRequest
) -> ServiceAnswer[CompareEvaluationsResponse | None]:
    """Two models row by row. Raises NotFound if an adapter is not visible to the visitor."""
    for side in (request.first, request.second):
        require_adapter(services, visitor, side.adapter_digest)
    return call("evaluation", lambda: services.compare_evaluations(request), None)
