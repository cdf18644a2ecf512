"""Notes for the operator about a port that its figures do not explain, each with a remedy."""

from forwarder.names import PortRecord, mtu_of


def unfinished(record: PortRecord) -> str:
    """Note that the VM leaves checksums undone, while its port is not set for that."""
    return (
        "its VM sends unfinished checksums, which receivers drop, so only ping works;"
        f"  `supervisor set {record.name} offload=tso` makes the switch finish them"
    )


def refused(record: PortRecord, frames: int) -> str:
    """Note that frames were too long for the VM; nothing if the port has no limit of length."""
    mtu, large = mtu_of(record.policy), record.policy.receive == "large"
    if not frames or not (mtu or large):
        return ""
    limit = "packets of 64 KiB" if large else f"its MTU of {mtu}"
    return f"{frames:,} frames to it were refused: they were longer than {limit}, or than its socket takes"
