"""The accounts of the test server. Every password is a canary."""

from typing import Final

DOMAIN: Final = "xmpp.test"
MODES: Final = ("starttls", "direct-tls")
PASSWORDS: Final = {
    user: f"canary-password-of-{user}"
    for user in ("alice", "bob", "victim", "mallory", "gopher", "gretel", "holder", "piper")
}
