"""Capturing over the control socket: what is asked for, and what is as configured."""

from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.support.taping import BEGIN_NS, OBSERVER
from xproxy.capture.service import CaptureService, CoreSettings
from xproxy.config.capture import CaptureSettings
from xproxy.config.log import LogSettings
from xproxy.config.settings import Settings
from xproxy.config.stream import StreamLimits, StreamPolicy
from xproxy.control import captures
from xproxy.control.router import Caller, Refused, Request, Router
from xproxy.events import Event
from xproxy.events.capture import CaptureStarted
from xproxy.xmpp.memory import Memory


class Operator:
    """Asks a proxy that is configured so."""

    def __init__(self, settings: Settings) -> None:
        self.events: list[Event] = []
        self.router = Router()
        service = CaptureService(
            settings=settings.capture,
            observer=OBSERVER,
            correlation_key=b"k" * 32,
            core_settings=lambda: CoreSettings(limits=StreamLimits(), policy=StreamPolicy(), memory=Memory()),
            note=self.events.append,
            wall_ns=lambda: BEGIN_NS,
        )
        captures.register(self.router, service, settings)

    async def ask(self, what: str, **body: object) -> dict[str, Any]:
        resource, parts = self.router.find("POST", f"/v1/capture/{what}")
        request = Request(method="POST", path=resource.path, caller=Caller(pid=1, uid=2), parts=parts, body=body)
        return dict(await resource.handler(request))


def configured(**settings: Any) -> Settings:
    return attrs.evolve(Settings(), capture=CaptureSettings(**settings))


async def test_filters_of_the_configuration_hold_until_others_are_named(tmp_path: Path) -> None:
    operator = Operator(configured(jid="romeo@example.org", net="192.0.2.0/24", actions="sasl-failed"))
    started = await operator.ask("start", directory=str(tmp_path))
    assert (started["jid"], started["net"], started["actions"]) == (
        "romeo@example.org",
        "192.0.2.0/24",
        ("sasl-failed",),
    )
    await operator.ask("stop")
    started = await operator.ask("start", directory=str(tmp_path), jid="juliet@example.org")
    assert (started["jid"], started["net"]) == ("juliet@example.org", "192.0.2.0/24")
    assert [event.jid for event in operator.events if isinstance(event, CaptureStarted)] == [
        "romeo@example.org",
        "juliet@example.org",
    ]


@pytest.mark.parametrize(
    ("body", "message", "hint"),
    [
        ({"actions": "sasl-faild"}, "actions: there is no action 'sasl-faild'", "did you mean sasl-failed?"),
        ({"jid": "romeo@example.org/orchard"}, "jid: 'romeo@example.org/orchard' is no bare JID", "write user@"),
        ({"net": "192.0.2.400"}, "net: '192.0.2.400' is no address and no network", "write 192.0.2.7 or"),
        ({"directory": "captures"}, "captures is no absolute path", "the proxy may run in another directory"),
        ({"bodies": "yes"}, "bodies must be true or false", ""),
        ({"ring": 1}, "unknown parameter 'ring'", "known here:"),
    ],
)
async def test_what_cannot_be_is_refused_with_what_to_do(
    body: dict[str, object], message: str, hint: str, tmp_path: Path
) -> None:
    with pytest.raises(Refused) as refused:
        await Operator(configured()).ask("start", **{"directory": str(tmp_path), **body})
    assert refused.value.message == message
    assert (refused.value.hint or "").startswith(hint)


async def test_where_records_name_nobody_nothing_is_captured(tmp_path: Path) -> None:
    settings = attrs.evolve(configured(), log=LogSettings(identities="pseudonym"))
    with pytest.raises(Refused, match="captures name users and addresses"):
        await Operator(settings).ask("start", directory=str(tmp_path))
