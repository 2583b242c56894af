"""Known secrets out of any text: the last guard before something is written or shown."""

import base64
import html
import json
import re
from collections.abc import Iterable, Iterator
from typing import Final
from xml.sax.saxutils import escape, quoteattr

MASK: Final = "[secret]"
OCTETS_MIN: Final = 4  # a shorter one would be found by chance, all over a stanza
BASE64_OCTETS_MIN: Final = 6  # below it too few characters are its own


class Scrubber:
    """Replaces each known secret, in whatever encoding it may appear."""

    def __init__(self, secrets: Iterable[str]) -> None:
        """``secrets``: passwords, tokens ...; those shorter than OCTETS_MIN are looked for as whole words only."""
        self._secrets = sorted({secret for secret in secrets if secret}, key=len, reverse=True)
        forms = sorted({form for secret in self._secrets for form in _forms_of(secret)}, key=len, reverse=True)
        self._pattern = re.compile("|".join(forms)) if forms else None

    def __call__(self, text: str) -> str:
        """Return ``text`` without the secrets."""
        return text if self._pattern is None else self._pattern.sub(MASK, text)

    def finds(self, text: str) -> bool:
        """Whether there is one in ``text``."""
        return self._pattern is not None and self._pattern.search(text) is not None


def _forms_of(secret: str) -> Iterator[str]:
    """Yield patterns: as it is, escaped for XML, HTML, JSON and repr, in hex, inside Base64 at each alignment."""
    octets = secret.encode("utf-8", "surrogatepass")
    if len(octets) < OCTETS_MIN:
        yield rf"(?<!\w){re.escape(secret)}(?!\w)"
        return
    plain = {secret, escape(secret), quoteattr(secret)[1:-1], html.escape(secret), json.dumps(secret)[1:-1]}
    plain |= {repr(secret)[1:-1], octets.hex(), octets.hex().upper()}
    for start in range(3 if len(octets) >= BASE64_OCTETS_MIN else 0):
        # The octets before it are unknown: drop the characters they share bits with, at both ends.
        encoded = base64.b64encode(bytes(start) + octets).decode()
        first, last = (start * 8 + 5) // 6, (start + len(octets)) * 8 // 6
        plain |= {encoded[first:last], encoded[first:last].translate(str.maketrans("+/", "-_"))}
    yield from map(re.escape, plain)
