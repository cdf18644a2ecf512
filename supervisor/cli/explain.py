"""``supervisor explain A B``: say whether A can reach B, and if not, why."""

import json
import sys
from typing import Any

import click

from supervisor.cli.options import directory, runtime_dir_option
from supervisor.screen.visible import visible

Json = dict[str, Any]


@click.command()
@runtime_dir_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
def explain(runtime_dir: str | None, as_json: bool, a: str, b: str) -> None:
    """Say whether A can reach B, and if not, the reason.

    Each is a port's name or number, a MAC or IP address; with a gateway also `host`, or an address or a name
    outside.
    Exit status 0: they can talk; 1: they cannot.
    """
    from supervisor.console.client import Client  # noqa: PLC0415
    from supervisor.explain import explain as explanation  # noqa: PLC0415 - a page of help needs no zmq
    from supervisor.explain.facts import gather  # noqa: PLC0415
    from supervisor.explain.reach import look_up, reach  # noqa: PLC0415
    from supervisor.screen.folding import folded  # noqa: PLC0415

    if not (a.strip() and b.strip()):
        raise click.UsageError("A and B cannot be empty; name two ports, MAC or IP addresses")
    with Client(directory(runtime_dir)) as client:
        told = explanation.explain(a, b, gather(client.ask, (a, b), reach, look_up))
    if as_json:
        click.echo(json.dumps(told))
    else:
        for line in "\n".join(_lines(told)).split("\n"):
            click.echo(folded(visible(line), sys.stdout))
    if not told["talk"]:
        raise click.exceptions.Exit(1)


def _lines(told: Json) -> list[str]:
    """Return the answer, the other findings and the facts, for a person."""
    found = [f"  {'stops' if each['stops'] else 'note'}: {each['text']}" for each in told["findings"]]
    lines = [f"{told['answer']}.", *found, f"  path: {told['path']}"]
    for end in told["ends"]:
        lines += ["", f"{end['said']}:", *(f"  {key}: {value}" for key, value in _end(end).items() if value)]
    for row in told["sent"]:
        way = f"from {row['source']} to {row['target']}"
        last = f"the last {row['age_s']:.1f} s ago, the longest {row['longest']:,} bytes"
        lines.append(f"\n{way}: {row['frames']:,} frames, {last}")
    for asked in told["unanswered"]:
        last = f"{asked['times']} times, the last {asked['age_s']:.1f} s ago"
        lines.append(f"\nno answer: {asked['name']} asks for {asked['target']}, {last}")
    for lost in told["lost_between"]:
        way = f"from {lost['source']} to {lost['target']}"
        lines.append(f"\nlost {way}: {lost['egress_full']:,} frames, for which the ring had no room")
    if told["gateway"] is not None:
        lines.append(f"\ngateway: {told['gateway']['state']}")
    return lines


def _end(end: Json) -> dict[str, str]:
    """Return the facts of one end, in words."""
    if end["port"] is None:
        return {"port": "none", "address": end["address"] or ""}
    settings = end["settings"]
    macs = [
        f"{each['mac']} ({_seen(each['age_s'])}{', pinned' if each['pinned'] else ''})"
        for each in end["macs"]
    ]
    return {
        "port": f"{end['port']} ({end['name']}, {end['transport']}), {end['state']}"
        + (", stalled" if end["stalled"] else ""),
        "macs": ", ".join(macs) or "none seen",
        "leases": ", ".join(end["leases"]),
        "uses": ", ".join(end["uses"]),
        "isolated": f"reaches {', '.join(settings['reaches']) or 'nothing'}" if settings["isolated"] else "",
        "guard": "on" if settings["guard"] else "off",
        "mtu": str(settings["mtu"] or "none"),
        "offload": f"{settings['offload']}, receive {settings['receive']}",
        "frames": f"{end['rx']['frames']:,} from the VM, {end['tx']['frames']:,} to it" if end["rx"] else "",
        "drops": _drops(end["drops"]),
        "in the last minute": _drops(end["recent_drops"]),
    }


def _drops(drops: Json) -> str:
    return ", ".join(f"{count:,} {word}" for word, count in drops.items())


def _seen(age_s: int | None) -> str:
    return "never seen" if age_s is None else f"seen {age_s} s ago"
