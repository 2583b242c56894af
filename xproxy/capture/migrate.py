"""Older versions of the cassette brought to the present one, a step at a time.

``STEPS[n]`` takes a root of version n and returns one of n + 1. tests/vectors/cassettes keeps a sample of each version;
a new version adds a step here and a sample there.
"""

from collections.abc import Callable, Mapping
from typing import Final

from lxml import etree

from xproxy.capture.cassette import NAMESPACE, VERSION

_V1: Final = "{urn:xproxy:cassette:1}"
_V2: Final = f"{{{NAMESPACE}}}"


def migrate(root: etree._Element, version: int) -> etree._Element:
    """Return ``root``, of ``version``, as one of the present version; lines stay those of the file."""
    for step in range(version, VERSION):
        root = STEPS[step](root)
    return root


def _from_1(root: etree._Element) -> etree._Element:
    """Version 1 kept each session's stanzas inside the session (c and s), and TLS and SASL as elements.

    A session of it is one login that ends with the client's closing tag; there is one session at a time.
    """
    new = etree.Element(f"{_V2}cassette", {"version": "2"}, nsmap={None: NAMESPACE})
    new.sourceline = root.sourceline  # type: ignore[misc]
    script: list[etree._Element] = []
    sessions: list[etree._Element] = []
    for child in root:
        match str(child.tag).removeprefix(_V1):
            case "meta":
                meta = _copy(child, "meta", ("recorded", "by", "redaction"))
                meta.set("bodies", "recorded")
                new.append(meta)
            case "account":
                new.append(_copy(child, "account", ("name", "jid")))  # password-env is the command line's now
            case "session":
                sessions.append(_session_from_1(child, root, script))
            case _:
                new.append(child)  # a comment; anything else is the reader's to complain of
    new.extend(sessions)
    holder = etree.SubElement(new, f"{_V2}script")
    holder.extend(script)
    return new


def _session_from_1(old: etree._Element, root: etree._Element, script: list[etree._Element]) -> etree._Element:
    tls, sasl = old.find(f"{_V1}tls"), old.find(f"{_V1}sasl")
    account = None if sasl is None else sasl.get("account")
    name = account or f"s{old.get('id', '1')}"
    session = etree.Element(f"{_V2}session", {"name": name})
    session.sourceline = old.sourceline  # type: ignore[misc]
    if account is not None:
        session.set("account", account)
        for each in root.iter(f"{_V1}account"):
            if each.get("name") == account:
                session.set("domain", each.get("jid", "").partition("@")[2])
    session.set("tls", "starttls" if tls is None else tls.get("how", "starttls"))
    if sasl is not None and (mechanism := sasl.get("mechanism")):
        session.set("mechanism", mechanism)
        session.set("mechanisms", mechanism)
    script.extend(_event(kind, name, old.sourceline) for kind in ("connect", "login"))
    for child in old:
        match str(child.tag).removeprefix(_V1):
            case "tls" | "sasl":
                pass
            case "c" | "s" as who:
                event = _event("client" if who == "c" else "server", name, child.sourceline)
                for attribute in ("t", "order", "optional"):
                    if (value := child.get(attribute)) is not None:
                        event.set(attribute, value)
                event.extend(list(child))
                script.append(event)
            case _:
                script.append(child)
    closing = _event("close", name, old.sourceline)
    closing.set("by", "client")
    script.append(closing)
    return session


def _event(kind: str, session: str, line: int | None) -> etree._Element:
    event = etree.Element(f"{_V2}{kind}", {"in": session})
    event.sourceline = line  # type: ignore[misc]
    return event


def _copy(old: etree._Element, name: str, attributes: tuple[str, ...]) -> etree._Element:
    new = etree.Element(f"{_V2}{name}", {key: value for key in attributes if (value := old.get(key)) is not None})
    new.sourceline = old.sourceline  # type: ignore[misc]
    return new


STEPS: Final[Mapping[int, Callable[[etree._Element], etree._Element]]] = {1: _from_1}
