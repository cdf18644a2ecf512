"""Real and fake VMs for the tests: what speaks to the switch from outside, as a user's machine would.

Rooms: ``fake_vm`` (raw frames over each socket kind), ``netns`` (a network namespace with TAPs), ``pump``
(carries frames between such a TAP and a VM socket), ``qemu`` and ``uml`` (whole kernels, driven over their
consoles), ``initramfs`` and ``kernel`` (what these boot from), ``machine`` (what tests do with anything that
has an IP stack), ``switch`` (the switch itself, started as a user starts it), ``requirements`` (what is
missing here, and whether that is a skip or a failure) and ``fixtures``.

Two rules hold everywhere. Nothing sleeps to wait: everything polls something observable until a deadline
(``waiting``). Nothing leaves the machine: the only network of a guest is the switch, and addresses are set
inside guests and inside namespaces made here, never on an interface of the host.
"""
