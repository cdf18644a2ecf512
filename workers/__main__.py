"""``python -m workers RUNTIME_DIR``: started by the supervisor, never by a person."""

import os
import sys


def forgo_fork_hooks() -> None:
    """Let no module ask to be called in a fork, as threading and random do, which ZeroMQ's package imports.

    A template has one thread, so no lock is to be made anew; and no worker uses random. Each hook is Python,
    and what it touches is copied: 0.4 MiB in each worker.
    """
    os.register_at_fork = lambda **_: None


def main() -> int:
    """Be the template that workers are forked from. Returns the exit status."""
    if len(sys.argv) != 2:
        print("usage: python -m workers RUNTIME_DIR (the supervisor starts this)", file=sys.stderr)  # noqa: T201
        return 2
    forgo_fork_hooks()
    from workers.template import run  # noqa: PLC0415 - its imports would ask

    return run(sys.argv[1])


if __name__ == "__main__":
    sys.exit(main())
