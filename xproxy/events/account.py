"""Accounts: made, changed, removed, and the tokens that stand for a password. No field can hold a value of a form."""

import attrs

from xproxy.events.common import EventBase, Level


@attrs.frozen(kw_only=True)
class RegistrationSucceeded(EventBase):
    """The server made an account, or changed what it holds (XEP-0077 section 3.1)."""

    action = "registration-succeeded"
    level = Level.INFO
    message = "An account was registered."

    fields: tuple[str, ...]  # names of the fields that were filled in; of unknown ones only "other"
    duration_ns: int  # from request to result


@attrs.frozen(kw_only=True)
class RegistrationFailed(EventBase):
    """The server refused to make, change or remove an account (XEP-0077 sections 3.1 to 3.3)."""

    action = "registration-failed"
    level = Level.WARNING
    message = "A registration, a change of password or a removal was refused."

    purpose: str  # "register", "password-change", "account-remove"
    fields: tuple[str, ...]
    type: str | None
    condition: str
    condition_known: bool
    code: str | None  # legacy number: "409" is a name that is taken
    application_conditions: tuple[str, ...]
    text: str | None
    text_bytes: int
    duration_ns: int


@attrs.frozen(kw_only=True)
class PasswordChanged(EventBase):
    """The server took a new password (XEP-0077 section 3.3)."""

    action = "password-changed"
    level = Level.INFO
    message = "A password was changed."

    duration_ns: int


@attrs.frozen(kw_only=True)
class AccountRemoved(EventBase):
    """The server removed the account at its own user's wish (XEP-0077 section 3.2)."""

    action = "account-removed"
    level = Level.INFO
    message = "An account was removed."

    duration_ns: int


@attrs.frozen(kw_only=True)
class FastTokenIssued(EventBase):
    """The server gave the client a token for the next login (XEP-0484 section 4.3). The token is never kept."""

    action = "fast-token-issued"
    level = Level.INFO
    message = "A token for the next login was issued."

    requested: bool  # False: the server replaces an old one by itself
    mechanism: str | None  # the one the token was asked for
    expires: str | None  # XEP-0082 date and time
