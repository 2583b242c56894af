import pytest

from xproxy.capture.codec import event_from_json, event_to_json
from xproxy.events import Endpoint
from xproxy.events.connection import ConnectionAccepted

ACCEPTED = ConnectionAccepted(client=Endpoint("2001:db8::7", 40_001), listener=Endpoint("192.0.2.1", 5222))


def test_an_event_comes_back() -> None:
    assert event_from_json(event_to_json(ACCEPTED)) == ACCEPTED


@pytest.mark.parametrize(("ip", "port"), [("384.0.2.7", 1), ("", 1), ("192.0.2.7", -1), ("192.0.2.7", 65_536), (7, 1)])
def test_what_is_no_address_is_no_event(ip: object, port: object) -> None:
    value = event_to_json(ACCEPTED) | {"client": {"ip": ip, "port": port}}
    with pytest.raises(ValueError, match="it is no ConnectionAccepted"):
        event_from_json(value)
