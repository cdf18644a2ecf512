"""Workers and gateways of a running switch that do what a test says."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

PATIENCE_S = 60.0


class TakenOver:
    """The test's ends of the processes that a switch starts while ``environment`` is its environment."""

    def __init__(self, directory: Path) -> None:
        self._path = str(directory / "taken-over")
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(self._path)
        os.chmod(self._path, 0o777)
        self._listener.listen(64)
        self._listener.settimeout(PATIENCE_S)
        self._processes: dict[int | str, socket.socket] = {}

    def environment(self) -> dict[str, str]:
        """What makes them come here."""
        return {"PYTHONPATH": str(Path(__file__).parent), "BULKHEAD_TAKEN_OVER": self._path}

    def run(self, process: int | str, source: str, **facts: object) -> dict[str, Any]:
        """Run source in the worker of that pid, or in ``gateway`` or ``gateway.inside``.

        It fills ``said``, which is returned.
        """
        while process not in self._processes:
            sock, _ = self._listener.accept()
            sock.settimeout(PATIENCE_S)
            name = sock.recv(64).decode()
            self._processes[int(name) if name.isdecimal() else name] = sock
        self._processes[process].send(f"facts = {facts!r}\n{source}".encode())
        answer: dict[str, Any] = json.loads(self._processes[process].recv(1 << 20))
        assert "failed" not in answer, answer
        return answer

    def forget(self, process: int | str) -> None:
        """Meet the next process of that name: this one has ended."""
        self._processes.pop(process).close()

    def close(self) -> None:
        for sock in self._processes.values():
            sock.close()
        self._listener.close()
