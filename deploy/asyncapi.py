"""Writes `docs/asyncapi.yaml` (AsyncAPI 3.0) and `docs/events.md` out of `proto/topics.yaml`; `--check` only compares.

Run it as `python -m deploy.asyncapi`, from anywhere.
"""

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from tailor.events.topics import RAW, Topic, load_topics

ROOT = Path(__file__).parents[1]
ASYNCAPI_FILE = ROOT / "docs" / "asyncapi.yaml"
EVENTS_FILE = ROOT / "docs" / "events.md"
GENERATED = "Generated from proto/topics.yaml by `python -m deploy.asyncapi`; edit that instead."

# The CloudEvents attributes in Kafka's binary mode, as `tailor.events.envelope` writes them.
HEADERS = {
    "ce_specversion": "Always `1.0`.",
    "ce_id": "Id of the event; events with the same id are the same fact.",
    "ce_type": "Name of the topic.",
    "ce_source": "Publisher, `/tailor/SERVICE`.",
    "ce_time": "Time of publication, RFC 3339.",
    "ce_dataschema": "Full name of the protobuf message of the value.",
    "content-type": "`application/protobuf`.",
}
# Headers of a publisher that sends the file itself; JSON has the same fields in the value.
RAW_HEADERS = {
    "content-type": "`application/json`, or the media type of the file that the value is.",
    "document-id": "The publisher's own id of the document, where the value is a file.",
}


def retention(topic: Topic) -> str:
    """How long its events are kept, in words."""
    if topic.retention_hours is None:
        return "compacted: the last event of each key stays"
    kept = _span(topic.retention_hours)
    return f"{kept} once handled, {_span(topic.kept_hours or 0)} before" if topic.unread_retention_hours else kept


def _span(count: int) -> str:
    days, hours = divmod(count, 24)
    return f"{count} hours" if hours or days < 2 else f"{days} days"


def asyncapi(topics: Iterable[Topic], version: str) -> dict[str, Any]:
    """The AsyncAPI document."""
    listed = list(topics)
    operations: dict[str, Any] = {}
    for topic in listed:
        for service in topic.producers:
            operations[f"{service}.sends.{topic.name}"] = _operation("send", topic, service)
        for service in topic.consumers:
            operations[f"{service}.receives.{topic.name}"] = _operation("receive", topic, service)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Tailor's events",
            "version": version,
            "license": {"name": "Apache-2.0"},
            "description": GENERATED,
        },
        "defaultContentType": "application/protobuf",
        "channels": {topic.name: _channel(topic) for topic in listed},
        "operations": operations,
        "components": {"messages": {topic.name: _message(topic) for topic in listed}},
    }


def _operation(action: str, topic: Topic, service: str) -> dict[str, Any]:
    operation: dict[str, Any] = {"action": action, "channel": {"$ref": f"#/channels/{topic.name}"}}
    if action == "receive":
        operation["x-delivery"] = topic.consumers[service]
        if topic.consumers[service] != "every-replica":
            operation["bindings"] = {"kafka": {"groupId": {"type": "string", "const": service}}}
    return operation


def _channel(topic: Topic) -> dict[str, Any]:
    if topic.retention_hours is None:
        configuration: dict[str, Any] = {"cleanup.policy": ["compact"]}
    else:
        configuration = {"cleanup.policy": ["delete"], "retention.ms": (topic.kept_hours or 0) * 3_600_000}
    return {
        "address": topic.name,
        "description": topic.description,
        "messages": {"event": {"$ref": f"#/components/messages/{topic.name}"}},
        "bindings": {"kafka": {"partitions": topic.partitions, "topicConfiguration": configuration}},
        "x-raw-zone": topic.raw_zone,
    }


def _message(topic: Topic) -> dict[str, Any]:
    raw = topic.schema == RAW
    message: dict[str, Any] = {
        "name": topic.name,
        "summary": topic.description,
        "contentType": "application/json" if raw else "application/protobuf",
        "headers": {
            "type": "object",
            "properties": {
                name: {"type": "string", "description": text}
                for name, text in (RAW_HEADERS if raw else HEADERS).items()
            },
        },
        "bindings": {"kafka": {"key": {"type": "string", "description": topic.key}}},
        "examples": [_example(topic)],
    }
    if not raw:
        message["x-protobuf-message"] = topic.schema
    return message


def _example(topic: Topic) -> Mapping[str, Any]:
    if topic.schema == RAW:
        return {"headers": dict(topic.example["headers"]), "payload": dict(topic.example["json"])}
    return {"payload": dict(topic.example)}


def events_page(topics: Iterable[Topic]) -> str:
    """The Markdown page."""
    listed = list(topics)
    lines = [
        "# Events",
        "",
        f"<!-- {GENERATED} -->",
        "",
        "Every topic of Tailor. Events are CloudEvents 1.0 in Kafka's binary mode: the attributes below are headers, the value is",
        "a protobuf message. Delivery is at least once: the same `ce_id` again is the same fact.",
        "`tailor event read TOPIC` prints any of them as JSON lines.",
        "",
        "| header | holds |",
        "|---|---|",
        *(f"| `{name}` | {text} |" for name, text in HEADERS.items()),
        "",
        "The two topics that outsiders write have headers of their own:",
        "",
        "| header | holds |",
        "|---|---|",
        *(f"| `{name}` | {text} |" for name, text in RAW_HEADERS.items()),
        "",
        "| topic | key | partitions | kept | from | to |",
        "|---|---|---|---|---|---|",
        *(_row(topic) for topic in listed),
        "",
    ]
    for topic in listed:
        lines += _section(topic)
    return "\n".join(lines)


def _row(topic: Topic) -> str:
    kept = "compacted" if topic.retention_hours is None else retention(topic)
    cells = (f"[{topic.name}](#{topic.name.replace('.', '')})", topic.key, str(topic.partitions), kept)
    return f"| {' | '.join(cells)} | {', '.join(topic.producers)} | {', '.join(topic.consumers)} |"


def _section(topic: Topic) -> list[str]:
    consumers = ", ".join(f"{name} ({delivery})" for name, delivery in topic.consumers.items())
    value = "JSON, or the file itself" if topic.schema == RAW else f"`{topic.schema}`"
    zone = ["- **Raw zone**: the value may hold personal data; ingestion alone reads it."] if topic.raw_zone else []
    return [
        f"## {topic.name}",
        "",
        topic.description,
        "",
        f"- Value: {value}. Key: {topic.key}. {topic.partitions} partition{'s' if topic.partitions > 1 else ''}.",
        f"- Kept: {retention(topic)}.",
        f"- From {', '.join(topic.producers)}; to {consumers}.",
        *zone,
        "",
        "```json",
        json.dumps(_example(topic)["payload"], indent=2, ensure_ascii=False),
        "```",
        "",
    ]


def render(topics: Mapping[str, Topic], version: str) -> dict[Path, str]:
    """Both files' contents."""
    document = yaml.safe_dump(asyncapi(topics.values(), version), sort_keys=False, allow_unicode=True, width=120)
    return {ASYNCAPI_FILE: f"# {GENERATED}\n{document}", EVENTS_FILE: events_page(topics.values())}


def _version() -> str:
    import tomllib

    return str(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])


def main() -> None:
    """Write the files; with `--check`, exit with 1 where one of them differs."""
    contents = render(load_topics(), _version())
    if sys.argv[1:] == ["--check"]:
        stale = [
            path for path, text in contents.items() if not path.exists() or path.read_text(encoding="utf-8") != text
        ]
        if stale:
            sys.exit(
                f"stale: {', '.join(str(path.relative_to(ROOT)) for path in stale)}; run python -m deploy.asyncapi"
            )
        return
    for path, text in contents.items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
