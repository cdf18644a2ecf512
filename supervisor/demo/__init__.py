"""The demonstration: fake VMs on a real switch, one of them stuck."""
