"""Captures: what a session said, without its secrets, so that it can be looked at and analysed again."""
