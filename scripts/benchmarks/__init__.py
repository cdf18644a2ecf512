"""Benchmarks of the switch as a user runs it: ``scripts/bench`` (``scripts/bench help`` lists them).

Each benchmark is a module with one ``Benchmark`` (``journal``): it measures, which adds runs to a journal,
and makes the rows of a table from those runs, which is pure. So a table never shows what was not measured, an
interrupted benchmark shows what it had, and the JSON holds every run that the table was made of.

What is compared are *contenders* (``lab``): ways for frames from one VM's socket to
another's. The VMs are sockets; their load comes from a small C program (``load/``, built and run by
``generator``). Contenders take turns within each round, and ratios are between runs of the same round, so
that what else the machine does hits all of them alike.
"""
