"""The gateway of a switch: a port whose far end is the kernel's stack in a network namespace of its own."""
