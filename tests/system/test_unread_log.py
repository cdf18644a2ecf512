"""A switch whose log no process reads goes on: VMs attach, commands are answered, it ends when told."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.helpers.guests.fake_vm import BROADCAST, build_frame, connect, mac
from tests.helpers.guests.fixtures import short_directory
from tests.helpers.guests.switch import ROOT
from tests.helpers.guests.waiting import PATIENCE, wait_for


def test_a_full_pipe_as_stderr() -> None:
    with short_directory() as directory:
        read, write = os.pipe()
        os.set_blocking(write, False)
        try:
            while True:
                os.write(write, b"full\n" * 800)
        except BlockingIOError:
            pass
        try:
            while True:
                os.write(write, b"x")
        except BlockingIOError:
            os.set_blocking(write, True)
        command = [sys.executable, "-m", "bulkhead"]
        where = ["--runtime-dir", str(directory / "run")]
        flags = [*where, "--listen-qemu", str(directory / "q"), "--log-level", "debug"]
        process = subprocess.Popen(
            [*command, "run", *flags], cwd=ROOT, stdout=subprocess.PIPE, stderr=write, text=True
        )
        os.close(write)
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("ready ")
            vms = []
            for _ in range(3):
                for _ in range(40):
                    connect(f"unix://{directory}/q").close()
                vms.append(connect(f"unix://{directory}/q"))

            def status() -> dict[str, object]:
                done = subprocess.run(
                    [*command, "status", "--json", *where],
                    cwd=ROOT,
                    capture_output=True,
                    text=True,
                    check=True,
                )
                return dict(json.loads(done.stdout))

            def all_live() -> bool:
                states = [port["state"] for port in status()["ports"]]  # type: ignore[attr-defined]
                return states == ["live"] * 3

            wait_for(all_live, "three live ports")
            assert isinstance(status()["lost_log_lines"], int)
            frame = build_frame(BROADCAST, mac(1))
            vms[0].send(frame)
            vms[1].receive_matching(lambda each: each == frame)
            subprocess.run([*command, "stop", *where], cwd=ROOT, check=True, timeout=PATIENCE)
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
            process.communicate()
            os.close(read)
