"""Tests. A package, so that they can share what stands for VMs, clocks and networks."""
