"""Events and settings as JSON values and back: the only place of this package that knows ``Any``.

An event is its action and its fields: ``{"action": "tls-established", "leg": "client", ...}``. Fields that are not
known are passed over, fields that are missing have their default or are a problem.
"""

import ipaddress
from typing import Any, Final, TypeVar

import attrs
import cattrs
from cattrs.errors import BaseValidationError

from xproxy.events import EVENT_TYPES, Endpoint, Event
from xproxy.jid import Jid

T = TypeVar("T")
Json = dict[str, Any]

_BY_ACTION: Final[dict[str, type[Any]]] = {event_type.action: event_type for event_type in EVENT_TYPES}


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=False)
    converter.register_unstructure_hook(Jid, str)
    converter.register_structure_hook(Jid, lambda value, _: Jid.from_text(value))
    converter.register_structure_hook(Endpoint, lambda value, _: _endpoint(value))
    for scalar in (int, float, str, bool):
        converter.register_structure_hook(scalar, _exactly)
    converter.register_unstructure_hook(bytes, lambda _: None)
    return converter


def _exactly(value: Any, kind: type[Any]) -> Any:
    """JSON has types of its own: what is no number there is none here, and true is no 1."""
    if isinstance(value, bool) is not (kind is bool) or not isinstance(value, (int, float) if kind is float else kind):
        raise TypeError(f"{type(value).__name__} where {kind.__name__} belongs")
    return kind(value)


_CONVERTER: Final = _make_converter()


def _endpoint(value: Any) -> Endpoint:
    ip, port = _exactly(value["ip"], str), _exactly(value["port"], int)
    ipaddress.ip_address(ip)
    if not 0 <= port <= 0xFFFF:
        raise ValueError("no port")
    return Endpoint(ip, port)


def event_to_json(event: Event) -> Json:
    """Return ``event`` as its action and its fields."""
    return {"action": event.action, **_CONVERTER.unstructure(event)}


def event_from_json(value: Any) -> Event:
    """Return the event that ``event_to_json`` wrote.

    Raises:
        ValueError: it is none, or of a later version. The text of the exception names fields, never values.
    """
    if not isinstance(value, dict):
        raise ValueError("an event is an object")
    event_type = _BY_ACTION.get(str(value.get("action")))
    if event_type is None:
        raise ValueError("no such event")
    event: Event = from_json(value, event_type)
    return event


def to_json(value: object) -> Json:
    """Return an attrs instance as JSON values; octets are left out (a key is no business of a capture)."""
    return {name: field for name, field in _CONVERTER.unstructure(value).items() if field is not None}


def from_json(value: Any, kind: type[T]) -> T:
    """Return the instance of ``kind`` that ``to_json`` wrote.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{kind.__name__} is an object")
    known = {field.name for field in attrs.fields(kind)}  # type: ignore[arg-type]
    try:
        return _CONVERTER.structure({name: field for name, field in value.items() if name in known}, kind)
    except (BaseValidationError, TypeError, ValueError, KeyError, AttributeError) as error:
        # Not the error's own words: they may quote what the file holds.
        raise ValueError(f"it is no {kind.__name__}") from error
