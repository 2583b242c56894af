"""Choose captures of integration runs for tests/vectors/captures: as few as say everything that all of them say.

    python -m pytest tests/integration --basetemp=DIR
    python -m tests.support.capture_vectors DIR

Each proxy that an integration test starts captures its sessions (proxy_process.py). What a capture says is the set of
its events with their reasons, mechanisms, versions and causes; captures are taken one after the other as long as one
adds to what is said. Golden events are written beside them, and README.md, which says where each is from.
"""

import sys
from pathlib import Path
from typing import Any, Final

from tests.support.proxy_process import at
from xproxy.replay.golden import golden_lines
from xproxy.replay.offline import replay

DIRECTORY: Final = Path(__file__).parent.parent / "vectors" / "captures"
BYTES_MAX: Final = 24_000
_TELLING: Final = (
    "event.action", "event.outcome", "event.reason", "error.code", "error.type", "xproxy.leg", "xproxy.cause",
    "xproxy.initiator", "xproxy.tls.alert", "xproxy.tls.direct", "xproxy.channel_binding.prediction", "tls.version",
    "xmpp.sent_by", "xmpp.sasl.mechanism", "xmpp.sasl.problem", "xmpp.session.how", "xmpp.violation.kind",
    "xmpp.inspection.scope", "xmpp.sm.anomaly", "xmpp.error.type", "xproxy.limit.name", "xmpp.jid_source",
)  # fmt: skip

_HEAD: Final = """\
# Captures of real sessions

Made by `python -m tests.support.capture_vectors` from the captures of the integration tests: real servers (Prosody
0.12.3, ejabberd 23.01), real clients (slixmpp, go-sendxmpp, profanity), and peers of our own that misbehave, each
through a real proxy. Secrets and what people say were taken out when they were captured; the names are the tests'.
`NAME.events.jsonl` is what the analysis says of `NAME.xcap.jsonl`: a change of it is reviewed like code. To accept one:

    xproxy replay offline tests/vectors/captures --golden tests/vectors/captures --update

`versions/` has a file of each version of the format, kept for ever.

| capture | test, as pytest shortens it | proxy | what it adds |
|---|---|---|---|
"""


def main(basetemp: Path) -> None:
    """Choose and write."""
    said: dict[Path, set[str]] = {}
    documents: dict[Path, list[dict[str, Any]]] = {}
    for file in sorted(basetemp.rglob("*.xcap.jsonl")):
        if file.parent.name != "captures" or file.stat().st_size > BYTES_MAX:
            continue
        replayed = list(replay(file))
        if any(each.ended or each.lossy for each in replayed):
            continue
        documents[file] = [record.document for each in replayed for record in each.records]
        said[file] = {" ".join(_told(document)) for document in documents[file]}
    for old in (*DIRECTORY.glob("*.xcap.jsonl"), *DIRECTORY.glob("*.events.jsonl")):
        old.unlink()
    rows: list[str] = []
    missing = set().union(*said.values())
    while missing:
        best = max(said, key=lambda file: (len(said[file] & missing), -file.stat().st_size, file.name))
        news = said[best] & missing
        missing -= news
        name = f"{len(rows) + 1:02}-{_name(best, basetemp)}"
        (DIRECTORY / f"{name}.xcap.jsonl").write_bytes(best.read_bytes())
        (DIRECTORY / f"{name}.events.jsonl").write_bytes(b"".join(golden_lines(documents[best], session=1)))
        test, proxy = best.relative_to(basetemp).parts[:2]
        adds = ", ".join(sorted({told.split()[0] for told in news}))
        rows.append(
            f"| {name} | {test.rstrip('0123456789')} | {proxy if proxy != 'captures' else 'shared'} | {adds} |\n"
        )
    (DIRECTORY / "README.md").write_text(_HEAD + "".join(rows))
    print(f"{len(rows)} of {len(said)} captures")


def _told(document: dict[str, Any]) -> list[str]:
    return [str(value) for path in _TELLING if (value := at(document, path)) is not None]


def _name(file: Path, basetemp: Path) -> str:
    test = file.relative_to(basetemp).parts[0].removeprefix("test_").rstrip("0123456789").strip("_")
    return test.replace("_", "-")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
