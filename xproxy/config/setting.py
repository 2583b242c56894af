"""How a configuration key is declared: default, unit and reason stand together at the field."""

from typing import Any

import attrs


def setting(default: Any, unit: str, why: str, **kwargs: Any) -> Any:
    """Return an attrs field with ``default``; ``unit`` and ``why`` are shown by ``xproxy config example``."""
    return attrs.field(default=default, metadata={"unit": unit, "why": why}, **kwargs)
