"""The JSON Schema (2020-12) of a record, generated from the tables that also make the documents.

It is strict for the producer's tests: no field beyond the table, each action with its constants and its required
fields. A consumer must ignore fields it does not know: adding one is a minor version of the schema, removing one or
changing its type a major one.
"""

from typing import Any, Final

from xproxy.events import EVENT_TYPES, Event
from xproxy.record.clean import INTEGER_MAX
from xproxy.record.ecs import SHAPES, Scope, dataset_of, level_name
from xproxy.record.fields import ECS_VERSION, FIELDS, ITEMS_MAX, Field, Type

SCHEMA_VERSION: Final = "1.0.0"
SCHEMA_ID: Final = f"urn:xproxy:schema:event:{SCHEMA_VERSION}"

_ENVELOPE: Final = (
    "@timestamp",
    "log.level",
    "message",
    "ecs.version",
    "event.id",
    "event.kind",
    "event.category",
    "event.type",
    "event.action",
    "event.dataset",
    "event.module",
    "event.severity",
    "observer.type",
    "observer.vendor",
    "observer.product",
    "observer.version",
    "observer.hostname",
    "service.name",
    "service.ephemeral_id",
)

_TIME: Final = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?(Z|\+00:00)$"
_CONSTRAINTS: Final[dict[str, dict[str, Any]]] = {
    "@timestamp": {"pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z$"},
    "ecs.version": {"const": ECS_VERSION},
    "event.id": {"pattern": r"-[1-9][0-9]*$"},
    "event.kind": {"const": "event"},
    "event.module": {"const": "xproxy"},
    "event.action": {"enum": [event_type.action for event_type in EVENT_TYPES]},
    "event.outcome": {"enum": ["success", "failure", "unknown"]},
    "trace.id": {"pattern": "^[0-9a-f]{32}$"},
    "observer.type": {"const": "proxy"},
    "xmpp.sent_by": {"enum": ["client", "server"]},
    "xmpp.jid_source": {"enum": ["stream-from", "sasl-claimed", "sasl-success", "bind-result", "resumed"]},
    "xproxy.identities.mode": {"enum": ["pseudonym", "omit"]},
    "xproxy.leg": {"enum": ["client", "server"]},
}

Schema = dict[str, Any]


def event_schema() -> Schema:
    """Return the JSON Schema of every record."""
    root: Schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        "title": "xproxy event",
        "description": f"One record of xproxy's log: ECS {ECS_VERSION}, nested, with xmpp.* and xproxy.* beside it. "
        "Consumers ignore fields they do not know.",
    }
    root |= _objects()
    _require(root, _ENVELOPE)
    root["allOf"] = [
        {
            "if": {
                "properties": {
                    "event": {"properties": {"action": {"const": event_type.action}}, "required": ["action"]}
                }
            },
            "then": {"$ref": f"#/$defs/{event_type.action}"},
        }
        for event_type in EVENT_TYPES
    ]
    root["$defs"] = {event_type.action: _action(event_type) for event_type in EVENT_TYPES}
    return root


def _objects() -> Schema:
    root: Schema = {"type": "object", "properties": {}, "additionalProperties": False}
    for field in FIELDS.values():
        parent = root
        for key in field.parent:
            parent = parent["properties"].setdefault(
                key, {"type": "object", "properties": {}, "additionalProperties": False, "minProperties": 1}
            )
        parent["properties"][field.key] = _leaf(field)
    return root


def _leaf(field: Field) -> Schema:
    leaf: Schema
    match field.type:
        case Type.KEYWORD | Type.TEXT:
            # Octets bound characters from above.
            leaf = {"type": "string", "minLength": 1, "maxLength": field.max_bytes}
        case Type.DATE:
            leaf = {"type": "string", "pattern": _TIME}
        case Type.IP:
            leaf = {"type": "string", "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]}
        case Type.LONG:
            leaf = {"type": "integer", "minimum": -INTEGER_MAX, "maximum": INTEGER_MAX}
        case Type.BOOLEAN:
            leaf = {"type": "boolean"}
    leaf |= _CONSTRAINTS.get(field.name, {})
    if field.array:
        leaf = {"type": "array", "items": leaf, "minItems": 1, "maxItems": ITEMS_MAX}
    if field.meaning:
        leaf["description"] = field.meaning
    return leaf


def _action(event_type: type[Event]) -> Schema:
    shape = SHAPES[event_type]
    constants: dict[str, Any] = {
        "log.level": level_name(event_type.level),
        "message": event_type.message,
        "event.category": list(shape.category),
        "event.type": list(shape.type),
        "event.dataset": dataset_of(event_type),
        "event.severity": int(event_type.level),
    }
    action: Schema = {"description": meaning_of(event_type)}
    for name, value in constants.items():
        _at(action, FIELDS[name].parent)["properties"][FIELDS[name].key] = {"const": value}
    # False as a schema: never there.
    outcome: Schema | bool = {"enum": list(shape.outcomes)} if shape.outcomes else False
    _at(action, ("event",))["properties"]["outcome"] = outcome
    required = list(shape.required)
    if shape.outcomes:
        required.append("event.outcome")
    match shape.scope:
        case Scope.SESSION:
            required.append("trace.id")
        case Scope.PROXY:
            action["properties"]["trace"] = False
        case Scope.EITHER:
            pass
    # What tells of a person or machine may be missing where identities are left out.
    always = [name for name in required if FIELDS[name].identity is None]
    _require(action, always)
    if covered := [name for name in required if FIELDS[name].identity is not None]:
        action["if"] = {"properties": {}}
        _at(action["if"], ("xproxy", "identities"))["properties"]["mode"] = {"const": "omit"}
        _require(action["if"], ["xproxy.identities.mode"])
        action["else"] = {}
        _require(action["else"], covered)
    return action


def _require(schema: Schema, names: list[str] | tuple[str, ...]) -> None:
    for name in names:
        field = FIELDS[name]
        path = (*field.parent, field.key)
        for depth, key in enumerate(path):
            required = _at(schema, path[:depth]).setdefault("required", [])
            if key not in required:
                required.append(key)


def _at(schema: Schema, path: tuple[str, ...]) -> Schema:
    """Return the subschema of the object at ``path``, with a place for properties."""
    for key in path:
        schema = schema.setdefault("properties", {}).setdefault(key, {})
    schema.setdefault("properties", {})
    return schema


def meaning_of(event_type: type[Event]) -> str:
    """Return the first sentence or paragraph of the class: what the action means."""
    assert event_type.__doc__ is not None
    return " ".join(event_type.__doc__.split("\n\n")[0].split())
