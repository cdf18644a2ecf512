"""The entry point of the commands ``bulkhead`` and ``supervisor``, in a module with a name of its own.

PyPI's ``supervisor`` (supervisord) installs its files into a package of the same name as ours. The later one
overwrites files of the other. So this module looks before it imports anything of ours, and names the cause
in one line.
"""

import sys
from importlib.util import find_spec
from pathlib import Path


def _neighbour() -> str | None:
    """Return the folder in which supervisord lies over our package, or None."""
    spec = find_spec("supervisor")
    for folder in (spec and spec.submodule_search_locations) or ():
        if Path(folder, "supervisord.py").exists():
            return str(Path(folder).parent)
    return None


def main() -> None:
    """Run one command of the command line."""
    if (folder := _neighbour()) is not None:
        sys.stderr.write(
            f"Error: the package `supervisor` (supervisord) is installed over this one in {folder}; "
            "install bulkhead-switch into a virtual environment of its own\n"
        )
        sys.exit(1)
    from supervisor.cli.main import main as command_line  # noqa: PLC0415 - it may be the other package's

    command_line(prog_name=Path(sys.argv[0]).name)


if __name__ == "__main__":
    main()
