"""``supervisor web``: the page beside a switch."""

import click

from forwarder.errors import LocalError
from supervisor.cli.options import directory, runtime_dir_option

DEFAULT = "tcp://127.0.0.1:9461"


@click.command()
@runtime_dir_option
@click.option(
    "--listen",
    metavar="tcp://HOST:PORT|PATH|unix://PATH",
    default=DEFAULT,
    show_default=True,
    help="Address of the page; port 0 takes any free one.",
)
@click.option(
    "--token-file",
    type=click.Path(dir_okay=False),
    help="File with the secret of requests; needed if other machines can reach the address.",
)
def web(runtime_dir: str | None, listen: str, token_file: str | None) -> None:
    """Show the switch in a browser, and serve metrics for Prometheus.

    Prints one line, `ready URL`. Runs until Ctrl-C or SIGTERM. Its end does not affect the switch.
    """
    try:
        from supervisor.web.run import serve  # noqa: PLC0415 - an extra of the installation
    except ModuleNotFoundError as error:
        raise LocalError(
            f"`web` needs the package {error.name}; pip install 'bulkhead-switch[web]'"
        ) from None
    serve(directory(runtime_dir), listen, token_file)
