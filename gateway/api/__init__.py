"""gvproxy's HTTP API, and the forwards and names that it changes."""
