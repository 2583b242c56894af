"""xproxy: a transparent XMPP man-in-the-middle logging proxy."""

__version__ = "0.1.0"
