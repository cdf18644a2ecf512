"""The base of the supervisor: log, runtime directory, unix sockets, ``/proc``."""
