"""Read the HTTP request with which a VM attaches to ``--listen``: the head only.

gvproxy's clients send ``POST /connect`` and speak frames from the next byte on, without waiting for an
answer; gvproxy gives none (``pkg/virtualnetwork/mux.go`` takes the connection over before it would write one,
and ``cmd/vm/main_linux.go`` would take one for a frame). So only a refused request gets an answer.

Pure: bytes go in; out comes whether the request is complete, and how many bytes lie behind it.
"""

from http import HTTPStatus

import h11

from forwarder.errors import PeerError

PATH = "/connect"
HEAD_BYTES = 4096
"""The longest head: gvforwarder's has 90 bytes, and no client needs much more."""


class RefusedError(PeerError):
    """The request does not ask for a VM's link; ``answer`` is the HTTP response."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        body = f"{why}\n".encode()
        lines = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
            "Content-Type: text/plain",
            f"Content-Length: {len(body)}",
            "Connection: close",
        )
        self.answer = "".join(f"{line}\r\n" for line in (*lines, "")).encode() + body


class Head:
    """One request, from its first byte to its last."""

    def __init__(self) -> None:
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)

    def feed(self, data: bytes) -> int | None:
        """Take at least one byte; return how many of the bytes belong to frames already.

        None: the request is not complete. Raises RefusedError if it is no request for a VM's link.
        """
        try:
            self._http.receive_data(data)
            request = self._http.next_event()
            if not isinstance(request, h11.Request):
                return None
            end = self._http.next_event()
        except h11.RemoteProtocolError as error:
            raise RefusedError(error.error_status_hint, f"this is no HTTP request: {error}") from None
        if request.target.partition(b"?")[0] != PATH.encode():
            raise RefusedError(
                404, f"this socket has only {PATH}; the gateway's HTTP API is at the socket of --services"
            )
        if not isinstance(end, h11.EndOfMessage):
            raise RefusedError(400, f"{PATH} takes no body; frames follow the head of the request")
        return len(self._http.trailing_data[0])
