"""The registry's people in memory."""

from typing import Any

from tailor.api.registry.v1 import people_pb2, people_pb2_grpc
from tailor.errors import NotFound, Reason
from tests.fakes.serving import refuse


class FakePeople(people_pb2_grpc.PeopleServiceServicer):
    """Invites without checking anything. `requests` are what it was asked."""

    def __init__(self) -> None:
        self.people: dict[str, people_pb2.Person] = {}
        self.requests: list[Any] = []

    def InvitePerson(self, request: Any, context: Any) -> people_pb2.InvitePersonResponse:
        self.requests.append(request)
        person = people_pb2.Person(
            person_id=f"per_{len(self.people) + 1:016x}",
            name=request.name,
            mail=request.mail,
            role=request.role,
            specialists=request.specialists,
            state=people_pb2.PERSON_STATE_INVITED,
            invited_by="key_1",
        )
        person.invitation_expire_time.FromJsonString("2026-12-24T18:00:00Z")
        self.people[person.person_id] = person
        return people_pb2.InvitePersonResponse(person=person, code="" if request.mail else "tli_code")

    def RenewInvitation(self, request: Any, context: Any) -> people_pb2.RenewInvitationResponse:
        self.requests.append(request)
        return people_pb2.RenewInvitationResponse(person=self._find(request.person_id, context), code="tli_again")

    def ListPeople(self, request: Any, context: Any) -> people_pb2.ListPeopleResponse:
        return people_pb2.ListPeopleResponse(people=reversed(self.people.values()))

    def RemovePerson(self, request: Any, context: Any) -> people_pb2.RemovePersonResponse:
        person = self._find(request.person_id, context)
        person.state, person.name = people_pb2.PERSON_STATE_REMOVED, ""
        return people_pb2.RemovePersonResponse(person=person)

    def _find(self, person_id: str, context: Any) -> people_pb2.Person:
        if person_id not in self.people:
            refuse(context, NotFound(Reason.UNKNOWN_PERSON, "This person does not exist."))
        return self.people[person_id]
