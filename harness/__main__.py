"""``python -m harness`` is ``mtenvs``."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command line, or says what it needs: the environments alone install without it."""
    try:
        from harness.cli import main as run
    except ModuleNotFoundError as error:
        sys.exit(f"mtenvs: the command line needs {error.name}: pip install 'mtenvs[train]'")
    run()


if __name__ == "__main__":
    main()
