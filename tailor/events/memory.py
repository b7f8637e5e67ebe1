"""A producer in memory, for tests."""

from google.protobuf.message import Message

from tailor.errors import Reason, Unavailable
from tailor.events.envelope import Event, headers_for
from tailor.events.producer import Producer


class MemoryProducer(Producer):
    """Keeps the events in `sent`. `down` makes it fail as if the broker was lost."""

    def __init__(self, source: str = "test") -> None:
        self.source = source
        self.sent: list[tuple[str, str, Message, str]] = []
        self.down = False

    def send(self, topic: str, key: str, message: Message, event_id: str) -> None:
        if self.down:
            raise Unavailable(Reason.KAFKA_UNAVAILABLE, "The Kafka broker does not answer.")
        self.sent.append((topic, key, message, event_id))

    def messages(self, topic: str) -> list[Message]:
        """The messages sent to a topic, the last one of each id."""
        return list({event_id: message for sent, _, message, event_id in self.sent if sent == topic}.values())

    def events(self, topic: str) -> list[Event]:
        """The events sent to a topic, as a consumer would receive them."""
        return [
            Event(sent, key, message.SerializeToString(), headers_for(sent, message, self.source, event_id), 0, offset)
            for offset, (sent, key, message, event_id) in enumerate(self.sent)
            if sent == topic
        ]
