"""The name and the command line of this process in ps(1) and top(1): a fork begins with its parent's."""

from contextlib import suppress

COMM = "/proc/self/comm"
STAT, MEMORY = "/proc/self/stat", "/proc/self/mem"
ARGUMENTS = 45
"""The place of arg_start behind the name in STAT; arg_end follows (proc(5))."""


def rename(name: str) -> str:
    """Give this process another name, of 15 bytes at most. Returns its earlier name."""
    try:
        with open(COMM, "r+") as comm:
            before = comm.read().strip()
            comm.seek(0)
            comm.write(name)
            return before
    except OSError:
        return ""  # without this file in the kernel, all processes have one name


def rewrite_command_line(*words: str) -> None:
    """Write these words over the command line, if they fit in its place, as ps(1) and pgrep(1) show it."""
    with suppress(OSError):
        with open(STAT) as stat:
            start, end = map(int, stat.read().rpartition(")")[2].split()[ARGUMENTS : ARGUMENTS + 2])
        line = b"".join(word.encode() + b"\0" for word in words)
        if len(line) <= end - start:
            with open(MEMORY, "r+b", buffering=0) as memory:
                memory.seek(start)
                memory.write(line.ljust(end - start, b"\0"))
