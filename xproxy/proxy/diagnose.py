"""What our own log may say of an exception: its type and where, never its text, which may quote a peer."""

import traceback
from pathlib import PurePath


def frames_of(error: BaseException) -> str:
    """Return type and frames of ``error``, innermost last, and the same of what caused it, in one line."""
    parts: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        frames = " > ".join(
            f"{PurePath(frame.filename).name}:{frame.lineno} {frame.name}"
            for frame in traceback.extract_tb(current.__traceback__)
        )
        inner = ""
        if isinstance(current, BaseExceptionGroup):
            inner = " of (" + "; ".join(frames_of(each) for each in current.exceptions) + ")"
        parts.append(f"{type(current).__name__} at {frames or 'unknown'}{inner}")
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return ", after ".join(parts)
