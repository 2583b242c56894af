"""Capturing over the control socket: ``GET /v1/capture``, ``POST /v1/capture/start`` and ``/stop``.

What a request does not name is as configured: filters of the configuration hold until others are named.

What capturing does is in the log by its own events, with who asked for it; the server's ``config-changed`` says that
somebody asked.
"""

from pathlib import Path
from typing import Any

import attrs

from xproxy.capture.service import CaptureService
from xproxy.config.capture import CaptureSettings
from xproxy.config.check import check
from xproxy.config.settings import Settings
from xproxy.control.router import Document, Refused, Request, Router
from xproxy.errors import UsageProblem


def register(router: Router, service: CaptureService, settings: Settings) -> None:
    """Add it. ``settings``: those of the run, whose limits hold for what is started here too."""
    operations = _Operations(service, settings)
    router.read("/v1/capture", operations.status)
    router.change("POST", "/v1/capture/start", operations.start, what="capture")
    router.change("POST", "/v1/capture/stop", operations.stop, what="capture")


class _Operations:
    def __init__(self, service: CaptureService, settings: Settings) -> None:
        self._service = service
        self._settings = settings

    async def status(self, request: Request) -> Document:
        request.only()
        return self._status()

    async def start(self, request: Request) -> Document:
        request.only("directory", "jid", "net", "actions", "bodies")
        directory = request.text("directory")
        if directory is not None and not Path(directory).is_absolute():
            raise Refused(400, f"{directory} is no absolute path", "the proxy may run in another directory")
        configured = self._settings.capture
        bodies = request.body.get("bodies", configured.bodies)
        if not isinstance(bodies, bool):
            raise Refused(400, "bodies must be true or false")
        wanted = attrs.evolve(
            configured,
            directory=configured.directory if directory is None else Path(directory),
            jid=request.text("jid") or configured.jid,
            net=request.text("net") or configured.net,
            actions=request.text("actions") or configured.actions,
            bodies=bodies,
        )
        self._check(wanted)
        try:
            self._service.start(wanted, by_uid=request.caller.uid, by_pid=request.caller.pid)
        except UsageProblem as problem:
            raise Refused(409, problem.message, problem.hint) from problem
        return self._status()

    async def stop(self, request: Request) -> Document:
        request.only()
        if not self._service.stop(by_uid=request.caller.uid, by_pid=request.caller.pid):
            raise Refused(409, "nothing is captured", "start it: xproxy capture start DIR")
        return self._status()

    def _check(self, wanted: CaptureSettings) -> None:
        def place(section: str, key: str) -> str:
            return f"{section}.{key}"

        for problem in check(attrs.evolve(self._settings, capture=wanted), place):
            if problem.where.startswith("capture."):
                raise Refused(400, f"{problem.where.partition('.')[2]}: {problem.message}", problem.hint)

    def _status(self) -> Document:
        status = self._service.status()
        document: dict[str, Any] = attrs.asdict(status)
        document["directory"] = None if status.directory is None else str(status.directory)
        return document
