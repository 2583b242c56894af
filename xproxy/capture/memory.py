"""What the proxy remembers of earlier sessions, as an input of this one: its answers are written down and given again.

Only questions whose answers a session's events depend on are here; what a session leaves for the next is not asked.
"""

from collections import deque
from collections.abc import Iterable
from typing import Any, TypeVar

from xproxy.jid import Jid, JidError
from xproxy.xmpp.memory import Memory

T = TypeVar("T")

Answer = tuple[str, Any]


class WitnessedMemory(Memory):
    """Asks the real memory, and keeps the answers until they are taken away."""

    def __init__(self, memory: Memory) -> None:
        super().__init__()
        self._real = memory
        self._answers: list[Answer] = []

    def take(self) -> tuple[Answer, ...]:
        """Return the answers since the last call; nothing if all said what an empty memory says."""
        answers, self._answers = self._answers, []
        return tuple(answers) if any(answer for _, answer in answers) else ()

    def _note(self, question: str, answer: T) -> T:
        self._answers.append((question, answer))
        return answer

    def resumable(self, id_hash: str, jid: Jid) -> None:
        """Remember."""
        self._real.resumable(id_hash, jid)

    def resumed(self, id_hash: str) -> Jid | None:
        """Ask."""
        jid = self._real.resumed(id_hash)
        self._note("resumed", None if jid is None else str(jid))
        return jid

    def is_starttls_missing(self, domain: str, *, offered: bool) -> bool:
        """Ask."""
        return self._note("is_starttls_missing", self._real.is_starttls_missing(domain, offered=offered))

    def previous_certificate(self, domain: str, sha256: str) -> str | None:
        """Ask."""
        return self._note("previous_certificate", self._real.previous_certificate(domain, sha256))

    def missing_mechanisms(self, of: tuple[str, str, str], mechanisms: tuple[str, ...]) -> tuple[str, ...]:
        """Ask."""
        return self._note("missing_mechanisms", self._real.missing_mechanisms(of, mechanisms))

    def logged_in_by(self, user: str, mechanism: str) -> None:
        """Remember."""
        self._real.logged_in_by(user, mechanism)

    def mechanism_before(self, user: str) -> str | None:
        """Ask."""
        return self._note("mechanism_before", self._real.mechanism_before(user))

    def count_shape(self, fingerprint: str) -> int:
        """Ask."""
        count = self._real.count_shape(fingerprint)
        self._note("count_shape", count if count > 1 else None)
        return count


class ScriptedMemory(Memory):
    """Gives the answers of a capture. A question that it was not asked then has the answer of an empty memory."""

    def __init__(self) -> None:
        super().__init__()
        self._answers: deque[Answer] = deque()

    def give(self, answers: Iterable[Answer]) -> None:
        """The answers to what the next input makes the session ask."""
        self._answers = deque(answers)

    def _next(self, question: str) -> Any:
        if self._answers and self._answers[0][0] == question:
            return self._answers.popleft()[1]
        return None

    def resumable(self, id_hash: str, jid: Jid) -> None:
        """Nothing: it was said what came of it."""

    def logged_in_by(self, user: str, mechanism: str) -> None:
        """Nothing."""

    def resumed(self, id_hash: str) -> Jid | None:
        """Answer."""
        text = self._next("resumed")
        try:
            return Jid.from_text(text) if isinstance(text, str) else None
        except JidError:
            return None

    def is_starttls_missing(self, domain: str, *, offered: bool) -> bool:
        """Answer."""
        return self._next("is_starttls_missing") is True

    def previous_certificate(self, domain: str, sha256: str) -> str | None:
        """Answer."""
        return _text(self._next("previous_certificate"))

    def missing_mechanisms(self, of: tuple[str, str, str], mechanisms: tuple[str, ...]) -> tuple[str, ...]:
        """Answer."""
        names = self._next("missing_mechanisms")
        return tuple(str(name) for name in names) if isinstance(names, list | tuple) else ()

    def mechanism_before(self, user: str) -> str | None:
        """Answer."""
        return _text(self._next("mechanism_before"))

    def count_shape(self, fingerprint: str) -> int:
        """Answer."""
        count = self._next("count_shape")
        return count if type(count) is int and count > 1 else 1


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
