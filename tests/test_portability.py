"""The core compiles for another system than Linux, all but the files that would be rewritten for it."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.test_architecture import CORE, LINUX_ONLY, unit_of

TARGET = "aarch64-macos"
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-DPy_LIMITED_API=0x030A0000", "-Wall", "-Wextra", "-Werror"]
MACH_O_ARM64 = bytes.fromhex("cffaedfe0c000001")


def python_headers() -> Path | None:
    """Return where they are, or None where they are for one system only, as Debian's are."""
    directory = Path(sysconfig.get_path("include"))
    return None if "multiarch" in (directory / "pyconfig.h").read_text() else directory


def sources(headers: Path | None) -> list[Path]:
    return [
        path
        for path in sorted(CORE.rglob("*.c"))
        if path.relative_to(CORE).as_posix() not in LINUX_ONLY
        and (headers is not None or path.parent.name != "python")
    ]


@pytest.mark.parametrize("source", sources(python_headers()), ids=unit_of)
def test_it_compiles_for_macos_on_arm64(source: Path, tmp_path: Path) -> None:
    made = tmp_path / "made.o"
    include = [f"-I{CORE}", f"-I{sysconfig.get_path('include')}"]
    subprocess.run(
        [
            sys.executable,
            "-m",
            "ziglang",
            "cc",
            "-target",
            TARGET,
            *FLAGS,
            *include,
            "-c",
            "-o",
            made,
            source,
        ],
        check=True,
    )
    assert made.read_bytes()[:8] == MACH_O_ARM64
