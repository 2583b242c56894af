"""How a test's own TLS sockets see the other side's end, on every Python alike."""

import ssl


def tells_ends_apart(context: ssl.SSLContext) -> ssl.SSLContext:
    """Return ``context`` after making a bare FIN an error: before CPython 3.11.3 it reads as close_notify."""
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    return context


def is_bare(error: ssl.SSLError) -> bool:
    """Whether ``error`` says that TLS ended without close_notify, by FIN or RST."""
    return isinstance(error, ssl.SSLEOFError) or error.reason == "UNEXPECTED_EOF_WHILE_READING"
