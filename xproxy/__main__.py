"""The command ``xproxy`` and ``python -m xproxy``."""

import sys

EXIT_INTERRUPTED = 130  # as shells report SIGINT


def main() -> int:
    """Run the command line and return the exit code."""
    try:
        from xproxy.cli.main import main as run_command_line
    except KeyboardInterrupt:  # Ctrl-C while Python still reads our modules
        return EXIT_INTERRUPTED
    return run_command_line()


if __name__ == "__main__":
    sys.exit(main())
