"""[log] identities -> what is done to them, with the month's key of pseudonyms from the state directory."""

import logging
import secrets

from xproxy.config.settings import Settings
from xproxy.config.state import IDENTITY_KEY_FILE, read_identity_key, replace_identity_key
from xproxy.errors import FileProblem
from xproxy.record.identities import Identities, IdentityKey

log = logging.getLogger(__name__)


def open_identities(settings: Settings, at_ns: int) -> Identities | None:
    """Return what is done to identities in records; None: nothing. A key of a past month is replaced in its file.

    Raises:
        FileProblem: the key cannot be made, read or replaced, or is none.
    """
    state, mode = settings.state.directory, settings.log.identities
    if mode == "clear":
        return None
    if mode == "omit":
        return Identities("omit")
    data = read_identity_key(state, lambda: IdentityKey.new(at_ns, secrets.token_bytes).to_bytes())
    try:
        kept = IdentityKey.from_bytes(data)
    except ValueError as error:
        path = state / IDENTITY_KEY_FILE
        raise FileProblem(
            f"the key of pseudonyms {path} is none: {error}",
            "restore it, or delete it to get a new one: pseudonyms then no longer match those of earlier records",
            path=path,
        ) from error
    key = kept.at(at_ns)
    if key != kept:
        replace_identity_key(state, key.to_bytes())

    def keep(key: IdentityKey) -> None:
        try:
            replace_identity_key(state, key.to_bytes())
        except FileProblem as problem:
            log.error("the key of last month's pseudonyms is still there: %s", problem)

    return Identities("pseudonym", key, on_new_key=keep)
