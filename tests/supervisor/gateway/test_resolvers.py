"""The host's resolvers: resolv.conf as the C library reads it, followed however it changes."""

from __future__ import annotations

import os
from pathlib import Path

from supervisor.gateway.resolvers import HERE, MOST, MOST_BYTES, Resolvers, read


def test_the_file_is_read_as_the_c_library_does() -> None:
    lines = [
        "# nameserver 10.0.0.9",
        "nameserver 127.0.0.53 # ours",
        "nameserver x",
        " nameserver 10.0.0.8",
        "search x",
        "nameserver",
    ]
    assert read(lines).addresses == (("127.0.0.53", 53),)
    assert read(["nameserver\tfd00::1", "nameserver fe80::1%lo"]).addresses == (
        ("fd00::1", 53),
        ("fe80::1", 53, 0, 1),
    )
    assert read(["nameserver 127.1", "nameserver 0x7f.2", "nameserver 999.1"]).addresses == (
        ("127.0.0.1", 53),
        ("127.0.0.2", 53),
    )
    assert len(read([f"nameserver 10.0.0.{number}" for number in range(9)]).addresses) == MOST


def test_options_may_ask_for_tcp_anywhere_in_the_file(tmp_path: Path) -> None:
    server = "nameserver 10.0.0.1"
    for said in (
        "options use-vc",
        "options ndots:2 use-vc rotate",
        "options\tuse-vc",
        "options edns0\noptions use-vc",
    ):
        assert read([*said.splitlines(), server]) == ((("10.0.0.1", 53),), True)
        assert read([server, *said.splitlines()]).by_tcp
    for said in (
        "options",
        "options use-vc2",
        "use-vc",
        "search use-vc",
        "# options use-vc",
        "nameserver use-vc",
    ):
        assert not read([server, said]).by_tcp
    path = tmp_path / "resolv.conf"
    path.write_text("options use-vc\n")
    resolvers = Resolvers(path=path)
    assert resolvers.servers() == (HERE, True)
    path.unlink()
    assert resolvers.servers() == (HERE, False)


def test_a_file_without_names_or_that_is_missing_means_this_machine(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    resolvers = Resolvers(path=path)
    assert resolvers.servers().addresses == HERE == (("127.0.0.1", 53),)
    path.write_text("options edns0\n")
    assert resolvers.servers().addresses == HERE
    path.write_text("nameserver 10.0.0.1\n")
    assert resolvers.servers().addresses == (("10.0.0.1", 53),)
    path.write_text("")
    assert resolvers.servers().addresses == HERE
    path.unlink()
    assert resolvers.servers().addresses == HERE


def test_a_file_is_followed_when_it_is_changed_replaced_or_linked_elsewhere(tmp_path: Path) -> None:
    path, other = tmp_path / "resolv.conf", tmp_path / "other"
    path.write_text("nameserver 10.0.0.1\n")
    resolvers = Resolvers(path=path)
    assert resolvers.servers().addresses == (("10.0.0.1", 53),)
    path.write_text("nameserver 10.0.0.22\n")
    assert resolvers.servers().addresses == (("10.0.0.22", 53),)
    other.write_text("nameserver 10.0.0.33\n")
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    os.replace(other, path)  # of the same size and age
    assert resolvers.servers().addresses == (("10.0.0.33", 53),)
    link, first, second = tmp_path / "link", tmp_path / "1", tmp_path / "2"
    first.write_text("nameserver 10.0.0.1\n")
    second.write_text("nameserver 10.0.0.2\n")
    link.symlink_to(first)
    linked = Resolvers(path=link)
    assert linked.servers().addresses == (("10.0.0.1", 53),)
    link.unlink()
    link.symlink_to(second)
    assert linked.servers().addresses == (("10.0.0.2", 53),)


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.mkdir()
    resolvers = Resolvers(path=path)
    assert resolvers.servers().addresses == HERE
    path.rmdir()
    os.mkfifo(path)  # without a writer: a reader would wait for one
    assert resolvers.servers().addresses == HERE
    path.unlink()
    path.write_text("nameserver 10.0.0.1\n")
    assert resolvers.servers().addresses == (("10.0.0.1", 53),)


def test_bytes_that_are_no_text_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_bytes(b"\xff\xfe\nnameserver 10.0.0.1\n\0")
    assert Resolvers(path=path).servers().addresses == (("10.0.0.1", 53),)


def test_a_huge_file_has_the_supervisor_wait_for_its_beginning_only(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 10.0.0.1\n" + "#" * MOST_BYTES + "\nnameserver 10.0.0.2\n")
    assert Resolvers(path=path).servers().addresses == (("10.0.0.1", 53),)
