"""Loopback ports for servers that cannot be told to let the kernel choose."""

import socket


def free_ports(count: int) -> list[int]:
    """Return ports that were free a moment ago; another process may be faster, so be ready to ask again."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [sock.getsockname()[1] for sock in held]
    finally:
        for sock in held:
            sock.close()


def accepts(port: int) -> bool:
    """Say whether somebody listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
