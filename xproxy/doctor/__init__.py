"""What will break behind xproxy, found out by looking at the server: ``xproxy doctor``.

``examine.py`` decides what is looked at and in which order; ``look.py`` is one connection and what was seen on it;
every other module has one group of checks: facts in, findings out. No finding is guessed: each says how it was seen,
and what could not be seen is a finding too.
"""
