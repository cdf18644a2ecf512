"""What a frame, a ring, a port and a membership replica *are*: no processes and no clock of its own.

Workers and the supervisor both build on this package; it imports neither of them. Importing it is
part of the time a virtual machine waits for its port, so its modules import little.
"""
