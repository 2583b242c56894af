"""@xmpp/client (npm) as a client under test, in a Node process for each scenario (tests/support/xmppjs/driver.mjs)."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import attrs

from tests.support.slix import Outcome

_DRIVER: Final = Path(__file__).with_name("xmppjs") / "driver.mjs"
_RUN_SECONDS_MAX: Final = 60.0


def missing() -> str | None:
    """Say why it cannot be used here, or None."""
    if shutil.which("node") is None:
        return "node is not installed (Debian package nodejs)"
    if not (_DRIVER.parent / "node_modules/@xmpp/client").is_dir():
        return "@xmpp/client is not installed (sh tests/run.sh does it, with npm)"
    return None


@attrs.frozen(kw_only=True)
class XmppJs:
    """How to call it: which server, which CA to trust."""

    port: int
    mode: str  # "starttls", "direct-tls"
    ca_file: Path
    domain: str

    def play(self, scenario: str, *clients: dict[str, str], **job: Any) -> Outcome:
        """Play ``scenario`` with these accounts and return its outcome."""
        job = {
            "scenario": scenario,
            "clients": list(clients),
            "port": self.port,
            "mode": self.mode,
            "domain": self.domain,
            **job,
        }
        done = subprocess.run(
            ["node", str(_DRIVER)],
            input=json.dumps(job).encode(),
            capture_output=True,
            timeout=_RUN_SECONDS_MAX,
            env=os.environ | {"NODE_EXTRA_CA_CERTS": str(self.ca_file)},
            check=False,
        )
        assert done.stdout, f"node ended with status {done.returncode}: {done.stderr.decode(errors='replace')[-3_000:]}"
        answer = json.loads(done.stdout)
        assert "crashed" not in answer, answer["crashed"]
        return Outcome(final=answer["final"], logins=answer["logins"], secrets=tuple(answer["secrets"]))
