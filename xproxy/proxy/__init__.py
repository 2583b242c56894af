"""The relay: listeners, connections, TLS on both legs, and the plane that moves the bytes."""
