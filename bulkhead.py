"""The entry point of the commands ``bulkhead`` and ``supervisor``: checks that our packages are really ours.

Other projects use the names of our packages, too: PyPI's ``supervisor`` (supervisord) installs its files into
a folder of the same name. Installed together, the later one overwrites files of the earlier one, and
uninstalling one removes files of the other. Installed apart, the first one on the path hides the other. So
this module, which has a name of its own, checks where each package would be imported from before it imports
one. If that is wrong, it names the cause and the remedy in one line.
"""

import os
import signal
import sys
from importlib.util import find_spec
from io import TextIOWrapper
from pathlib import Path

PACKAGES = ("forwarder", "gateway", "supervisor", "workers")
REMEDY = "install bulkhead-switch into a virtual environment of its own"


def _clash(home: Path) -> str:
    """Return the fault of our packages, which have to lie in ``home``; empty if there is none."""
    for name in PACKAGES:
        spec = find_spec(name)
        folders = [Path(each).resolve() for each in (spec and spec.submodule_search_locations) or ()]
        if any((folder / "supervisord.py").exists() for folder in folders):
            return f"the package `supervisor` (supervisord) is installed over this one in {folders[0].parent}"
        if spec is None or (home / name in folders and spec.origin is None):
            return f"{home / name / '__init__.py'} is missing: the removal of another package has deleted it"
        if home / name not in folders:
            found = folders[0] if folders else spec.origin
            return f"another package named `{name}` hides this one's: {found}"
    return ""


def _fail(why: str) -> None:
    sys.stderr.write(f"Error: {why}; {REMEDY}\n")
    sys.exit(1)


def _fill_standard_descriptors() -> None:
    """Open /dev/null for closed ones: the next socket or file would get the number and what is printed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - until the end


def _accept_every_sign() -> None:
    """Print a question mark for a sign that the encoding lacks: Latin-1 has no lines for tables."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def main() -> None:
    """Run one command of the command line."""
    takes_interrupts = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if takes_interrupts:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the command line can say it in one line
    _fill_standard_descriptors()
    _accept_every_sign()
    if why := _clash(Path(__file__).resolve().parent):
        _fail(why)
    try:
        from forwarder import errors  # noqa: PLC0415 - it may be another package's
        from forwarder.process import limits  # noqa: PLC0415 - the same

        try:
            limits.check(limits.COMMAND)
        except errors.LocalError as error:
            sys.stderr.write(f"Error: {error}\n")
            sys.exit(1)
        from supervisor.cli.main import main as command_line  # noqa: PLC0415 - it may be another package's

        if takes_interrupts:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        command_line(prog_name=Path(sys.argv[0]).name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in PACKAGES:
            raise
        _fail(f"the module {error.name} of this package is missing")


if __name__ == "__main__":
    main()
