"""Who is who in the log of a real conversation, in the modes that hide it."""

import re
from pathlib import Path

import pytest

from tests.integration.test_slixmpp import BY_NAME, Stage
from tests.support.accounts import DOMAIN, PASSWORDS
from tests.support.canary import Canary
from tests.support.mint import Mint
from tests.support.prosody import Prosody
from tests.support.proxy_process import running_xproxy
from tests.support.slix import SlixDriver

pytestmark = pytest.mark.integration

MODE = "starttls"
PLAYED = ("login", "wrong-password", "messages", "disco", "resume")


@pytest.mark.parametrize("identities", ["pseudonym", "omit"])
@pytest.mark.parametrize("level", ["info", "debug"])
def test_nobody_can_be_read_from_the_log(
    tmp_path: Path, prosody: Prosody, slix: SlixDriver, mint: Mint, canary: Canary, identities: str, level: str
) -> None:
    with running_xproxy(
        tmp_path,
        *("--identities", identities, "--log-level", level),
        canary=canary,
        upstream=f"127.0.0.1:{prosody.port(MODE)}",
        upstream_ca=mint.ca_file,
        domain=DOMAIN,
    ) as proxy:
        stage = Stage(prosody, {MODE: proxy}, slix, mint, canary)
        for name in PLAYED:
            both = stage.play(BY_NAME[name], MODE)
            assert both.proxied.final == both.direct.final
        proxy.stop()
        written = proxy.log_file.read_text()
    for user in PASSWORDS:
        assert not re.search(rf"\b{user}\b", written), user
    for address in (f"@{DOMAIN}/slix", "/slix-"):
        assert address not in written
    # The proxy's own addresses stay; those of the clients are cut to their network, or gone.
    clients = re.findall(r'"(?:source|client)":\{"ip":"([^"]*)"', written)
    assert set(clients) == ({"127.0.0.0"} if identities == "pseudonym" else set())
    assert (f"@{DOMAIN}" in written) is (identities == "pseudonym")
