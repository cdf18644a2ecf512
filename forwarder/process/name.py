"""The name of this process in ps(1) and top(1): a forked process has its parent's command line for ever."""

COMM = "/proc/self/comm"


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
