"""Help pages that show options in groups, each under a heading."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

REST = "Help"
"""Heading of options without a group, such as ``--help``."""


class GroupedOption(click.Option):
    """An option with the heading of its group."""

    def __init__(self, *args: Any, group: str = REST, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group


class GroupedCommand(click.Command):
    """A command whose help page shows each group under its heading, in the order of first options."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write all groups."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                groups.setdefault(getattr(param, "group", REST), []).append(record)
        for heading, records in groups.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def option(group: str, *names: str, **attributes: Any) -> Callable[[F], F]:
    """Add an option to a command, under a heading."""
    return click.option(*names, cls=GroupedOption, group=group, **attributes)
