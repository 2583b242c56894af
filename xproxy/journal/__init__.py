"""The journal: a log that proves itself. ``format.py`` holds the layout, ``writer.py`` how it stays whole."""
