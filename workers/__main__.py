"""``python -m workers RUNTIME_DIR``: started by the supervisor, never by a person."""

import sys

from workers.template import run


def main() -> int:
    """Be the template that workers are forked from. Returns the exit status."""
    if len(sys.argv) != 2:
        print("usage: python -m workers RUNTIME_DIR (the supervisor starts this)", file=sys.stderr)  # noqa: T201
        return 2
    return run(sys.argv[1])


if __name__ == "__main__":
    sys.exit(main())
