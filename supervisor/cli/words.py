"""``supervisor help WORD``: the meaning of a word of the screens and of ``events``, or of a command."""

import sys

import click


@click.command("help")
@click.option(
    "--runtime-dir",
    metavar="DIR",
    expose_value=False,
    help="As of other commands; words are the same for all switches.",
)
@click.argument("said", metavar="[WORD]", nargs=-1)
@click.pass_context
def help_(context: click.Context, said: tuple[str, ...]) -> None:
    """Explain a word of a table or of `events`, or a command.

    Without WORD, all words are explained. A heading of two words, like `CPU %` or `flows tcp`, is one word
    here.
    """
    from supervisor.screen import words  # noqa: PLC0415 - a page of help needs no rich
    from supervisor.screen.folding import folded  # noqa: PLC0415

    group = context.parent
    assert group is not None
    assert isinstance(group.command, click.Group)
    word = " ".join(said)
    command = group.command.get_command(group, word)
    if not word:
        for kind, each, meaning in words.all_words():
            click.echo(folded(f"{each:18} {kind}: {meaning}", sys.stdout))
        return
    found = words.meanings(word) or words.meanings("".join(word.split()[-1:]))
    for kind, meaning in found:
        click.echo(folded(f"{word} ({kind}): {meaning}", sys.stdout))
    if command is not None:
        with click.Context(command, info_name=word, parent=group) as inner:
            click.echo(command.get_help(inner))
    elif not found:
        similar = ", ".join(words.like(word))
        hint = f"; did you mean {similar}?" if similar else "; `supervisor help` lists all"
        raise click.UsageError(f"{word!r} is not a word of any table or of events{hint}")
