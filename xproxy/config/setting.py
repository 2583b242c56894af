"""How a configuration key is declared: default, unit and reason stand together at the field."""

from typing import Any

import attrs


def setting(default: Any, unit: str, why: str, *, example: str | list[str] | None = None, **kwargs: Any) -> Any:
    """Return an attrs field with ``default``; ``unit`` and ``why`` are shown by ``xproxy config example``.

    ``example`` is what that command shows, commented out, for a key whose default is to be absent.
    """
    return attrs.field(default=default, metadata={"unit": unit, "why": why, "example": example}, **kwargs)
