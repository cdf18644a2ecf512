"""gvproxy's HTTP API, and the forwards and names that it changes.

``http_server`` and ``services`` need h11, which takes 1.5 MiB: they are imported only if the API is wanted.
"""

CONNECTIONS = 64
"""Clients at once."""
