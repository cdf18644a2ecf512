"""The process that workers are forked from, before it forks."""

import subprocess
import sys

FORK = """
import os, sys, types

def run(directory):
    sys.modules.pop("threading", None)
    import threading
    before = threading._active_limbo_lock  # which threading's hook makes anew
    if (pid := os.fork()) == 0:
        os._exit(threading._active_limbo_lock is not before)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

sys.modules["workers.template"] = types.SimpleNamespace(run=run)
sys.argv[1:] = ["directory"]
from workers.__main__ import main
sys.exit(main())
"""


def test_no_module_is_called_in_a_fork() -> None:
    assert subprocess.run([sys.executable, "-c", FORK], check=False).returncode == 0
