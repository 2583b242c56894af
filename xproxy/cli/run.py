"""``xproxy run``: the proxy in front of a server."""

import contextlib
import ctypes
import gc
import logging
import os
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final

import click
import trio

from xproxy import app
from xproxy.config.load import load
from xproxy.config.options import OPTIONS, READY_FILE_VARIABLE
from xproxy.config.settings import Settings
from xproxy.control.systemd import Notifier, take_passed_sockets
from xproxy.errors import FileProblem

log = logging.getLogger(__name__)

GC_OBJECTS: Final = 10_000  # new ones, above those that have gone, until it looks: ten sessions that are set up

_M_ARENA_MAX: Final = -8  # malloc.h

_EPILOG = """
Every option can also be given by environment: --log-level is XPROXY_LOG_LEVEL, -c is XPROXY_CONFIG; XPROXY_LISTEN
takes several addresses. The command line beats the environment, which beats the file (-c, else ./xproxy.toml, else
/etc/xproxy/xproxy.toml). `xproxy config example` shows every key.

\b
Signals:
  SIGTERM, SIGINT   let sessions end by themselves for 30 s, then drop
                    them; a second signal: drop them now
  SIGHUP            read certificates and the log level again, open the
                    log file again (for log rotation); what is bad is
                    reported, and the old kept
"""


@click.command(epilog=_EPILOG)
@click.option(
    "--listen", multiple=True, metavar="HOST:PORT", help="Where clients connect; may be given several times, port 0 "
    "lets the system choose. Before it, proxy://: a balancer's PROXY protocol comes first; socks5://: clients ask by "
    "SOCKS5; tproxy://: a firewall rule hands connections over. [default: 127.0.0.1:5222]",
)  # fmt: skip
@click.option("--trusted", multiple=True, metavar="NETWORK", help="Whose PROXY headers and SOCKS5 requests are taken; "
              "may be given several times. [default: 127.0.0.0/8 and ::1/128]")  # fmt: skip
@click.option("--upstream", metavar="HOST:PORT|srv|original", help="The server every client is connected to; srv: the "
              "one the DNS names for the client's domain; original: the one it dialled before a packet filter "
              "redirected it here.")  # fmt: skip
@click.option("--domain", metavar="D", help="The XMPP domain, where a client names none.")
@click.option("--state", metavar="DIR", help="The CA, certificates, journal and control socket. [default: "
              "$STATE_DIRECTORY, else $XDG_STATE_HOME/xproxy, else ~/.local/state/xproxy]")  # fmt: skip
@click.option("--log", metavar="PATH|-", help="Append records to PATH as JSON Lines; on a terminal the human view is "
              "shown as well. -: records go to standard output. [default: -]")  # fmt: skip
@click.option("--log-format", metavar="auto|human|json", help="What standard output shows; auto: the human view on a "
              "terminal, JSON Lines when piped (nothing when piped with --log PATH, where json means: the file "
              "alone). [default: auto]")  # fmt: skip
@click.option("--log-level", metavar="L", help="debug, info, warning, error or critical: records below are not "
              "written. [default: info]")  # fmt: skip
@click.option("--identities", metavar="clear|pseudonym|omit", help="JIDs and addresses in records: as they are, "
              "as keyed pseudonyms that change every month, or not at all. [default: clear]")  # fmt: skip
@click.option("--cert", metavar="FILE", help="The server's own certificate chain (PEM), instead of one of the "
              "local CA; needs --key.")  # fmt: skip
@click.option("--key", metavar="FILE", help="The key of --cert.")
@click.option("--upstream-ca", metavar="FILE", help="Who may sign the server's certificate (PEM). [default: the "
              "system's authorities]")  # fmt: skip
@click.option("--upstream-verify", metavar="full|none", help="none: take any certificate from the server; every "
              "session's log says so. [default: full]")  # fmt: skip
@click.option("--upstream-tls", metavar="same|starttls|direct|none", help="How TLS begins on the server's side; "
              "none: in clear, to a server on this machine. [default: same]")  # fmt: skip
@click.option("--upstream-proxy-protocol", metavar="none|v1|v2", help="Tell the server the client's address first; "
              "it must expect that. [default: none]")  # fmt: skip
@click.option("--capture", metavar="DIR", help="Write each session to a file in DIR for `xproxy replay` and `xproxy "
              "capture`: what was said, without secrets and without what people say to each other.")  # fmt: skip
@click.option("--capture-jid", metavar="J", help="Capture only sessions of this account.")
@click.option("--capture-ip", metavar="NET", help="Capture only clients of this address or network.")
@click.option("--capture-on", metavar="ACTION,...", help="Keep sessions in memory, and write those in which one of "
              "these is recorded (see `xproxy events`).")  # fmt: skip
@click.option("--capture-ring", metavar="BYTES", type=int, help="How much of a session is kept so. [default: 1048576]")
@click.option("--capture-bodies", is_flag=True, default=None, help="Also capture what people say to each other; the "
              "log says so.")  # fmt: skip
@click.option("--keylog", metavar="FILE", help="Append the keys of all TLS sessions to FILE, for Wireshark; the log "
              "says so. For tests.")  # fmt: skip
@click.option("-c", "--config", "config_file", metavar="FILE", type=click.Path(path_type=Path), help="Configuration.")
@click.option("--ready-file", metavar="FILE", type=click.Path(path_type=Path), envvar=READY_FILE_VARIABLE,
              help="Written when the proxy listens: one real address a line.")  # fmt: skip
def run(config_file: Path | None, ready_file: Path | None, **options: object) -> None:
    """Run the proxy in front of a server.

    Point clients at the listening address: nothing in them changes. STARTTLS and direct TLS are told apart by the
    first byte. Clients must trust STATE/ca.pem (see `xproxy certs`), or be served the server's own --cert and --key.
    """
    logging.basicConfig(format="xproxy: %(levelname)s: %(message)s", level=logging.WARNING)
    assert {option.parameter for option in OPTIONS} == options.keys()

    def read() -> Settings:
        loaded = load(options, os.environ, config_file=config_file, need_upstream=True)
        for each in loaded.advice:
            log.warning("%s", each)
        return loaded.settings

    notifier = Notifier.from_environment(os.environ, os.getpid())
    passed = take_passed_sockets(os.environ, os.getpid())
    settings = read()
    spare_the_collector()
    keep_one_heap()
    trio.run(_run, partial(app.run, settings, reread=read, signals=True, passed=passed, notifier=notifier), ready_file)


def spare_the_collector() -> None:
    """Have Python's cycle collector look at sessions only, and less often.

    What is loaded by now stays for good: it need not be looked at again each time. A session being set up makes about a
    thousand objects that it looks at, so by default it runs more than once for each of them, and finds nothing; what a
    session that ended leaves in cycles can wait until some more have ended.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_OBJECTS, 10, 10)


def keep_one_heap() -> None:
    """Have glibc's malloc use one heap, before there are threads; elsewhere nothing is done.

    It gives each thread a heap of its own, and what one makes and another lets go, as records are, leaves holes: memory
    grew by 10 MiB in 10 000 sessions though no more of it was in use.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


async def _run(run_app: Callable[..., Awaitable[None]], ready_file: Path | None) -> None:
    async with trio.open_nursery() as nursery:
        running: app.Running = await nursery.start(run_app)
        try:
            if ready_file:
                write_ready_file(ready_file, running)
            click.echo(describe(running), err=True)
        except BaseException:
            nursery.cancel_scope.cancel()
            raise


def describe(running: app.Running) -> str:
    """Return the line that names the real addresses."""
    parts = [
        f"xproxy: listening on {', '.join(map(str, running.listeners))}",
        f"for {running.upstream}",
        f"records in {running.log_file}" if running.log_file else "records on standard output",
    ]
    if running.ca_file:
        parts.append(f"clients must trust {running.ca_file}")
    return "; ".join([" ".join(parts[:2]), *parts[2:]])


def write_ready_file(path: Path, running: app.Running) -> None:
    """Write the real addresses, one a line. Whoever waits for the file never sees it half written.

    Raises:
        FileProblem: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text("".join(f"{endpoint}\n" for endpoint in running.listeners))
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise FileProblem.from_os_error(error, doing="write the ready file", path=path) from error
