"""Rooms (XEP-0045): a join that was refused, a user who was put out. XMPPFramework's XMPPRoom tells neither.

Why is in a condition (section 7.2) or in status codes (section 15.6). Reasons are written by people and only counted.
"""

from collections.abc import Container
from typing import Final

from lxml import etree

from xproxy.events import Side
from xproxy.events.stanza import MucJoinFailed
from xproxy.xmpp import ns
from xproxy.xmpp.redact import is_legacy_code
from xproxy.xmpp.stanza import ADDRESS_CHARS_MAX, element_text, read_error

_JOIN: Final = f"{{{ns.MUC}}}x"
_USER: Final = f"{{{ns.MUC_USER}}}x"
_STATUS: Final = f"{{{ns.MUC_USER}}}status"
_ITEM: Final = f"{{{ns.MUC_USER}}}item"
_ACTOR: Final = f"{{{ns.MUC_USER}}}actor"
_REASON: Final = f"{{{ns.MUC_USER}}}reason"
_DESTROY: Final = f"{{{ns.MUC_USER}}}destroy"

STATUS_CODES_MAX: Final = 16
SELF: Final = "110"  # the presence is about its receiver

# Sections 7.2.5 to 7.2.9: what the conditions mean when a room answers a join with them.
REFUSALS: Final = {
    "not-authorized": "password-required",
    "forbidden": "banned",
    "item-not-found": "no-such-room",
    "not-allowed": "creation-restricted",
    "not-acceptable": "nick-reserved",
    "registration-required": "members-only",
    "conflict": "nick-conflict",
    "service-unavailable": "room-full",
    "jid-malformed": "nick-missing",
    "remote-server-not-found": "server-not-found",
    "remote-server-timeout": "server-not-found",
    "resource-constraint": "room-full",
    "gone": "room-gone",
}
# Section 15.6. The first that is there counts: 333 says that a kick was the service's own doing.
REMOVALS: Final = {
    "301": ("banned", "banned"),
    "333": ("removed", "technical"),
    "307": ("kicked", "kicked"),
    "321": ("removed", "affiliation-changed"),
    "322": ("removed", "members-only"),
    "332": ("removed", "service-shutdown"),
}
OTHER: Final = "other"


def room_joined(element: etree._Element) -> str | None:
    """Return the bare address of the room that a client's presence asks to enter (section 7.2.1); None if none."""
    if element.tag != f"{{{ns.CLIENT}}}presence" or element.get("type") is not None or element.find(_JOIN) is None:
        return None
    return _room(element.get("to"))


def join_failed(
    element: etree._Element, *, joining: Container[str] = (), account: str | None = None
) -> MucJoinFailed | None:
    """Return that a presence from the server refuses a join or puts the user out; None for any other stanza.

    ``joining``: bare addresses of rooms asked for and not yet entered, for services that do not repeat the join in
    their error. ``account``: the user's bare address, for services that do not mark a presence as his own (110).
    """
    if element.tag != f"{{{ns.CLIENT}}}presence":
        return None
    match element.get("type"):
        case "error":
            return _refused(element, joining)
        case "unavailable":
            return _put_out(element, account)
    return None


def _refused(element: etree._Element, joining: Container[str]) -> MucJoinFailed | None:
    room = _room(element.get("from"))
    if element.find(_JOIN) is None and (room is None or room not in joining):
        return None
    error = read_error(element, server_text=False, sent_by=Side.SERVER)
    return MucJoinFailed(
        kind="join-refused",
        reason=REFUSALS.get(error.condition, OTHER),
        room=room,
        condition=error.condition,
        condition_known=error.condition_known,
        type=error.type,
        status_codes=(),
        by_actor=False,
        text_bytes=error.text_bytes,
    )


def _put_out(element: etree._Element, account: str | None) -> MucJoinFailed | None:
    user = element.find(_USER)
    if user is None:
        return None
    codes = tuple(code for status in user.iterchildren(_STATUS) if is_legacy_code(code := status.get("code", "")))[
        :STATUS_CODES_MAX
    ]
    items = list(user.iterchildren(_ITEM))
    is_own = SELF in codes or (account is not None and any(_room(item.get("jid")) == account for item in items))
    if not is_own:
        return None
    kind, reason = next((REMOVALS[code] for code in REMOVALS if code in codes), (None, None))
    if kind is None or reason is None:
        if user.find(_DESTROY) is None:
            return None  # left of his own will, or another nick (303)
        kind, reason = "removed", "room-destroyed"
    return MucJoinFailed(
        kind=kind,
        reason=reason,
        room=_room(element.get("from")),
        condition=None,
        condition_known=None,
        type=None,
        status_codes=codes,
        by_actor=any(item.find(_ACTOR) is not None for item in items),
        text_bytes=sum(len(element_text(text).encode()) for text in user.iter(_REASON)),
    )


def _room(address: str | None) -> str | None:
    return address.partition("/")[0][:ADDRESS_CHARS_MAX] if address else None
