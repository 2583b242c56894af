"""Files for the machine that xproxy runs on: units, defaults, a container. ``xproxy share`` lists and writes them.

They lie in ``files/`` beside this module as they are installed, but for the path of the program, which depends on how
it was installed.
"""

from importlib import resources
from typing import Final

import attrs

EXECUTABLE: Final = "/usr/bin/xproxy"
"""What the files call the program; ``read`` puts the real path in its place."""


@attrs.frozen(kw_only=True)
class Shared:
    """One file."""

    name: str
    group: str
    place: str  # where it goes
    about: str


SHARED: Final = (
    Shared(
        name="xproxy.service",
        group="systemd",
        place="/etc/systemd/system/xproxy.service",
        about="the service: sandboxed, notifies systemd, watched by it",
    ),
    Shared(
        name="xproxy.socket",
        group="systemd",
        place="/etc/systemd/system/xproxy.socket",
        about="socket activation: systemd holds the ports over a restart",
    ),
    Shared(
        name="xproxy.sysusers",
        group="systemd",
        place="systemd-sysusers -",
        about="the service's user: read by that command, once",
    ),
    Shared(
        name="certificate.conf",
        group="systemd",
        place="/etc/systemd/system/xproxy.service.d/certificate.conf",
        about="drop-in: certificate and key from files of root (LoadCredential)",
    ),
    Shared(
        name="capabilities.conf",
        group="systemd",
        place="/etc/systemd/system/xproxy.service.d/capabilities.conf",
        about="drop-in: ports below 1024, and TPROXY",
    ),
    Shared(
        name="xproxy.default",
        group="debian",
        place="/etc/default/xproxy",
        about="the options of the service as variables",
    ),
    Shared(
        name="xproxy.logrotate",
        group="debian",
        place="/etc/logrotate.d/xproxy",
        about="rotation of the records' copy in /var/log/xproxy",
    ),
    Shared(
        name="fail2ban-filter.conf",
        group="fail2ban",
        place="/etc/fail2ban/filter.d/xproxy.conf",
        about="what fail2ban counts in the records' copy: wrong passwords",
    ),
    Shared(
        name="fail2ban-jail.conf",
        group="fail2ban",
        place="/etc/fail2ban/jail.d/xproxy.conf",
        about="and how many of them ban an address, for how long",
    ),
    Shared(
        name="Containerfile",
        group="container",
        place="beside a wheel, or the source",
        about="an OCI image, not as root",
    ),
)


def find(name: str) -> tuple[Shared, ...]:
    """Return the file called ``name``, or the files of the group ``name``; empty where there is neither."""
    return tuple(shared for shared in SHARED if name in (shared.name, shared.group))


def read(shared: Shared, *, executable: str = EXECUTABLE) -> bytes:
    """Return the content of ``shared`` for a program that is at ``executable``."""
    data = resources.files(__name__).joinpath("files", shared.name).read_bytes()
    return data.replace(EXECUTABLE.encode(), executable.encode())
