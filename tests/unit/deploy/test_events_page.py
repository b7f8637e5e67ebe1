"""The pages made out of the list of topics."""

from deploy.asyncapi import ASYNCAPI_FILE, HEADERS, asyncapi, render
from tailor.api.events.v1 import drafts_pb2
from tailor.events.envelope import headers_for
from tailor.events.topics import load_topics


def test_the_pages_are_up_to_date() -> None:
    version = asyncapi_version()
    for path, text in render(load_topics(), version).items():
        assert path.read_text(encoding="utf-8") == text, "run python -m deploy.asyncapi"


def asyncapi_version() -> str:
    import yaml

    return str(yaml.safe_load(ASYNCAPI_FILE.read_text(encoding="utf-8"))["info"]["version"])


def test_every_topic_has_a_channel_a_message_and_its_operations() -> None:
    topics = load_topics()
    document = asyncapi(topics.values(), "0")
    assert set(document["channels"]) == set(document["components"]["messages"]) == set(topics)
    expected = sum(len(topic.producers) + len(topic.consumers) for topic in topics.values())
    assert len(document["operations"]) == expected


def test_the_documented_headers_are_those_that_are_sent() -> None:
    sent = headers_for("draft.created.v1", drafts_pb2.DraftCreated(), "inference", "evt_1")
    assert set(HEADERS) == set(sent)
