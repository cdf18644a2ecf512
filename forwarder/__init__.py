"""The base of workers and supervisor: frames, rings, ports, messages and membership.

It starts no process and has no clock of its own, and imports neither workers nor supervisor. A VM waits for
its port while this package is imported, so its modules import little.
"""
