"""Benchmarks of the switch as a user runs it: ``scripts/bench`` (``scripts/bench help`` lists them).

Each benchmark is a module with one ``Benchmark`` (``journal``): it measures, which adds runs to a journal,
and makes the rows of a table from those runs, which is pure. So a table shows only measured values, an
interrupted benchmark shows its runs so far, and the JSON holds every run of the table.

A benchmark compares *contenders* (``lab``): ways for frames from one VM's socket to another's. The VMs are
sockets; a small C program makes their load (``load/``, built and run by ``generator``). Contenders take turns
within each round, and ratios are between runs of the same round, so that other work of the machine hits all
of them alike.
"""
