"""What a stream header asks for, read ahead of everything else.

Where the server depends on the domain, somebody must read the header before there is a server to relay it to. This is
no judgement of it: the same octets go through ``stream`` afterwards as if nobody had looked. So it is expat that reads,
which keeps no names (lxml would, for the life of the process), and what it reads decides where to connect and nothing
else: the certificate is compared with the domain that ``stream`` finds.
"""

import pyexpat
from typing import Final

import attrs

_INCOMPLETE: Final = frozenset(
    pyexpat.errors.codes[message]
    for message in (pyexpat.errors.XML_ERROR_NO_ELEMENTS, pyexpat.errors.XML_ERROR_UNCLOSED_TOKEN)
)


class OpeningRefused(Exception):  # noqa: N818 - says what the client sent
    """No stream begins like this."""


@attrs.frozen
class Opening:
    """A stream header."""

    to: str | None


class _Found(Exception):  # noqa: N818 - expat is not to read on
    pass


def read_opening(data: bytes) -> Opening | None:
    """Return what the stream header at the beginning of ``data`` says, None while it is not complete.

    Reads all of ``data`` each time: call it when another ``>`` has come, for before that no tag ends.

    Raises:
        OpeningRefused: ``data`` is not XML, or begins with a document type declaration.
    """
    found: list[str | None] = []
    parser = pyexpat.ParserCreate("UTF-8", "}")
    parser.buffer_text = False

    def start(name: str, attributes: dict[str, str]) -> None:
        found.append(attributes.get("to"))
        raise _Found

    def refuse(*_: object) -> None:
        raise OpeningRefused

    parser.StartElementHandler = start
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(data[: data.rfind(b">") + 1], False)
    except _Found:
        return Opening(found[0])
    except pyexpat.ExpatError as error:
        if error.code in _INCOMPLETE:
            return None
        raise OpeningRefused from None
    return None
