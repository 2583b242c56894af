"""[listen]: where clients connect."""

import attrs

from xproxy.config.address import HostPort
from xproxy.config.setting import setting


@attrs.frozen(kw_only=True)
class ListenSettings:
    """Where clients connect. STARTTLS and direct TLS are told apart by the first byte, on every address."""

    addresses: tuple[HostPort, ...] = setting(
        (HostPort("127.0.0.1", 5222),),
        "list of HOST:PORT",
        "only this machine until told otherwise; port 0 lets the system choose",
    )
