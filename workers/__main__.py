"""``python -m workers RUNTIME_DIR``: started by the supervisor, never by a person."""

import sys

from workers.spare import wait_for_port
from workers.worker import Worker


def main() -> int:
    """Wait for a port, serve it, end. Returns the exit status."""
    if len(sys.argv) != 2:
        print("usage: python -m workers RUNTIME_DIR (the supervisor starts this)", file=sys.stderr)  # noqa: T201
        return 2
    assignment = wait_for_port(sys.argv[1])
    return 0 if assignment is None else Worker(assignment).serve()


if __name__ == "__main__":
    sys.exit(main())
