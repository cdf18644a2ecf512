"""The world of a soak: its VMs and what happens to them."""
