"""What an operator should know of a port and cannot see in its figures: a sentence each, with what helps."""

from forwarder.names import PortRecord, mtu_of


def unfinished(record: PortRecord) -> str:
    """Say that its VM leaves checksums undone, and its port is not set for it."""
    return (
        "its VM sends unfinished checksums, which no receiver takes, so only ping works;"
        f" `supervisor set {record.name} offload=tso` has the switch finish them"
    )


def refused(record: PortRecord, frames: int) -> str:
    """Say that so many frames did not reach the VM, being too long; nothing if any length may."""
    mtu, large = mtu_of(record.policy), record.policy.receive == "large"
    if not frames or not (mtu or large):
        return ""
    limit = "packets of 64 KiB" if large else f"its MTU of {mtu}"
    return f"{frames:,} frames to it were refused, being longer than {limit} or than its socket takes"
