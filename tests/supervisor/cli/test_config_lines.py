"""The line of everything in a TOML file: each item that tomllib reads is found at its line."""

import sys

from hypothesis import given
from hypothesis import strategies as st

from supervisor.cli.config_lines import locate

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

KEYS = st.sampled_from(["a", "b-1", '"c d"', "'e=[f'", '"g\\u0041"', '"#"'])


@st.composite
def leaves(draw):
    """A value on one line that carries its number, so that it can be found again: ``@0@``, ``@1@``…"""
    return draw(st.sampled_from(['"@"', "'@'", '"\\"@#"', "'[@'", '"""@"""', "'''{@'''", '"""]"" @"""']))


@st.composite
def values(draw, depth=0, inline=False):
    kind = draw(st.sampled_from(["leaf", "leaf", "list", "table"] if depth < 3 else ["leaf"]))
    if kind == "leaf":
        return draw(leaves())
    if kind == "table":
        pairs = draw(st.dictionaries(KEYS, values(depth + 1, inline=True), max_size=3))
        return "{ " + ", ".join(f"{key} = {value}" for key, value in pairs.items()) + " }"
    breaks = st.sampled_from(["", " ", "\n", " # it's a [comment\n", "\n\n"])
    items = draw(st.lists(values(depth + 1), max_size=3))
    return "[" + draw(breaks) + "".join(f"{item}{draw(breaks)},{draw(breaks)}" for item in items) + "]"


@st.composite
def files(draw):
    parts = []

    def pairs():
        for key, value in draw(st.dictionaries(KEYS, values(), max_size=3)).items():
            parts.append(f"{key} = {value}")
            parts.extend(draw(st.lists(st.sampled_from(["", "# [x]", '  # "']), max_size=1)))

    pairs()
    for number, several in enumerate(draw(st.lists(st.integers(0, 2), max_size=3))):
        for _ in range(several):
            parts.append(f"[[many{number}]]")
            pairs()
            parts.append(f"[many{number}.sub]")
            pairs()
        if not several:
            parts.append(f"[one{number}.two]")
            pairs()
    pieces = "\n".join(parts).split("@")
    return "".join(f"@{number}@{piece}" if number else piece for number, piece in enumerate(pieces))


def walk(value, path=()):
    if path:
        yield path, value
    if isinstance(value, dict):
        for key, item in value.items():
            yield from walk(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from walk(item, (*path, index))


@given(files())
def test_whatever_is_read_is_found_and_every_value_on_its_line(text):
    places = locate(text)
    parsed = dict(walk(tomllib.loads(text)))
    assert places.keys() == parsed.keys()
    for path, value in parsed.items():
        if isinstance(value, str):
            mark = value[value.index("@") : value.rindex("@") + 1]
            assert places[path] == text[: text.index(mark)].count("\n") + 1


def test_strings_of_many_lines_are_stepped_over():
    text = 'a = """\n[b]\nc = 1\n"""\nd = \'\'\'\n"""\n\'\'\'\ne = 1979-05-27 07:32:00 # f\n[g]\nh.i = +1.5\n'
    assert locate(text) == {("a",): 1, ("d",): 5, ("e",): 8, ("g",): 9, ("g", "h"): 10, ("g", "h", "i"): 10}
    assert set(locate(text)) == {path for path, _ in walk(tomllib.loads(text))}
