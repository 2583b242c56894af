"""Paths of the control socket, and how a part of the program adds its own.

A *resource* is a method and a path with a handler. Whoever has something to show or to change gets the router from
``app`` before the socket is open and registers there:

    def register(router: Router, captures: Captures) -> None:
        router.read("/v1/captures", captures.list)
        router.change("POST", "/v1/captures/{name}", captures.start, what="capture")
        router.change("DELETE", "/v1/captures/{name}", captures.stop, what="capture")

    async def start(self, request: Request) -> Document:
        seconds = request.number("seconds", default=60.0)      # of the body; Refused(400) if it is no number
        ...
        raise Refused(409, f"{request.parts['name']} is being captured", "choose another name")

* A handler gets a ``Request`` and returns a JSON object, or an ``Outcome`` around one where a part of what was asked
  may be left undone; ``Refused`` is an answer with a status and a sentence. Any other exception is a bug of ours: 500,
  reported on stderr, and the proxy goes on.
* It runs on the relay's thread: it may await, it may not block, and long work has checkpoints in it.
* What changes something is registered by ``change``, and the server records it (``config-changed``) with the uid and
  the pid of who asked, whatever comes of it. What merely reads is not recorded, unless the handler does so itself.
* ``/v1`` is the version. A field may be added to an answer; what takes one away or changes its meaning is ``/v2``.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import attrs

VERSION: Final = "v1"

Document = Mapping[str, Any]
"""A JSON object, as orjson takes it."""


@attrs.frozen(kw_only=True)
class Outcome:
    """What came of a change that has several parts."""

    document: Document
    applied: tuple[str, ...]
    kept: tuple[str, ...] = ()
    problem: str | None = None  # why it was kept: so the record of the change is one of a failure
    needs_restart: tuple[str, ...] = ()  # keys that are only read at the start


class Refused(Exception):  # noqa: N818 - it is an answer, not an accident
    """The request is answered with ``status`` (4xx, 5xx) and a sentence."""

    def __init__(self, status: int, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.hint = hint


@attrs.frozen(kw_only=True)
class Caller:
    """The process at the other end, as the kernel knows it (SO_PEERCRED, unix(7)); None where it does not say."""

    pid: int | None
    uid: int | None


@attrs.frozen(kw_only=True)
class Request:
    """What was asked."""

    method: str
    path: str
    caller: Caller
    parts: Mapping[str, str] = attrs.Factory(dict)  # of the path: {"name": "x"} for /v1/captures/{name}
    query: Mapping[str, str] = attrs.Factory(dict)
    body: Document = attrs.Factory(dict)

    def only(self, *names: str) -> None:
        """Refuse what is not among ``names``: a slip of the pen must not be passed over in silence."""
        if unknown := sorted({*self.query, *self.body} - set(names)):
            known = f"known here: {', '.join(names)}" if names else "there are none here"
            raise Refused(400, f"unknown parameter {unknown[0]!r}", known)

    def text(self, name: str, *, default: str | None = None) -> str | None:
        """Return a text, from the body or the query."""
        value = self.body.get(name, self.query.get(name, default))
        if value is not None and not isinstance(value, str):
            raise Refused(400, f"{name} must be text")
        return value

    def number(self, name: str, *, default: float | None = None, least: float = 0.0, most: float = 1e9) -> float | None:
        """Return a number, from the body or the query."""
        value = self.body.get(name, self.query.get(name, default))
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                value = name  # refused below
        if value is None:
            return None
        if type(value) not in (int, float) or not least <= value <= most:
            raise Refused(400, f"{name} must be a number from {least:g} to {most:g}")
        return float(value)


Handler = Callable[[Request], Awaitable[Document | Outcome]]


@attrs.frozen(kw_only=True)
class Resource:
    """A method on a path."""

    method: str
    path: str
    handler: Handler
    what: str | None  # what it changes, in the record of it; None: nothing

    def match(self, path: str) -> dict[str, str] | None:
        """Return the parts of ``path`` that this resource leaves open; None: it is another path."""
        ours, theirs = self.path.split("/"), path.split("/")
        if len(ours) != len(theirs):
            return None
        parts: dict[str, str] = {}
        for our, their in zip(ours, theirs, strict=True):
            if our.startswith("{") and their:
                parts[our[1:-1]] = their
            elif our != their:
                return None
        return parts


class Router:
    """The resources there are."""

    def __init__(self) -> None:
        self.resources: list[Resource] = []

    def read(self, path: str, handler: Handler) -> None:
        """``GET path`` only looks."""
        self._add(Resource(method="GET", path=path, handler=handler, what=None))

    def change(self, method: str, path: str, handler: Handler, *, what: str) -> None:
        """``method path`` changes ``what``, which is a word for the record: "log-level"."""
        assert method in ("POST", "PUT", "DELETE")
        self._add(Resource(method=method, path=path, handler=handler, what=what))

    def _add(self, resource: Resource) -> None:
        assert resource.path.startswith(f"/{VERSION}/"), resource.path
        assert all((known.method, known.path) != (resource.method, resource.path) for known in self.resources)
        self.resources.append(resource)

    def find(self, method: str, path: str) -> tuple[Resource, dict[str, str]]:
        """Return the resource for a request, and the parts of its path.

        Raises:
            Refused: 404 or 405.
        """
        found = [(resource, parts) for resource in self.resources if (parts := resource.match(path)) is not None]
        if not found:
            raise Refused(404, f"there is no {path}", f"this xproxy knows /{VERSION}")
        for resource, parts in found:
            if resource.method == method:
                return resource, parts
        raise Refused(405, f"{path} takes {', '.join(resource.method for resource, _ in found)}, not {method}")
