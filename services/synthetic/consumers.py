"""Events that synthetic listens to."""

from collections.abc import Callable

from services.synthetic import handlers, wire
from services.synthetic.handlers import Synthetic
from tailor.api.events.v1 import documents_pb2, drafts_pb2, models_pb2
from tailor.events.envelope import Event, decode

SPECIALISTS = "specialist.changed.v1"


class Consumers:
    """Translates events for the handlers."""

    def __init__(self, app: Synthetic) -> None:
        self._app = app

    def topics(self) -> dict[str, Callable[[Event], None]]:
        """The handlers of the topics that the service's group shares."""
        return {
            "document.anonymized.v1": self.document,
            "judgement.recorded.v1": self.judgement,
            "draft.created.v1": self.draft,
        }

    def document(self, event: Event) -> None:
        handlers.on_document(self._app, wire.to_document(decode(event, documents_pb2.DocumentAnonymized)))

    def judgement(self, event: Event) -> None:
        """Judgements that prefer no draft and have no comment make no rows and are ignored."""
        message = decode(event, drafts_pb2.JudgementRecorded)
        if message.retracted:
            self._app.repository.retract_judgement(wire.to_retraction(message))
        elif message.ranking or message.comment or not message.equal_drafts:
            handlers.on_judgement(self._app, wire.to_judgement(message))

    def draft(self, event: Event) -> None:
        """Drafts without a stored text make no rows and are ignored."""
        draft = wire.to_draft(decode(event, drafts_pb2.DraftCreated))
        if draft is not None:
            handlers.on_draft(self._app, draft)

    def specialist(self, event: Event) -> None:
        """Every replica reads all specialists."""
        message = decode(event, models_pb2.SpecialistChanged)
        if message.deleted:
            handlers.forget_specialist(self._app, message.name, message.revision)
        else:
            handlers.on_specialist(self._app, wire.to_specialist(message))
