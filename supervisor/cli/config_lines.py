"""Find the line of each key and item in a TOML file, which tomllib does not tell.

``locate`` walks over a text that tomllib has accepted, so it checks nothing; it only finds where strings,
comments, arrays and tables begin and end. A place is a path into the parsed file, such as ``("listen-qemu",
0, "pin", 1)``, with the line where its key or, in an array, its value begins.
"""

import re

Path = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE = re.compile(r"[^,\]}#\r\n]*")
_KEY = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}(?!")' r"|'''.*?'{3,5}(?!')" r'|"(?:[^"\\]|\\.)*"' r"|'[^']*'", re.DOTALL
)
_UNESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))")
_ESCAPES = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r"}


def locate(text: str) -> dict[Path, int]:
    """Return the line, from 1, of every key and array item of a file."""
    return _Walk(text).places


class _Walk:
    """One pass over the text; ``_at`` is the position."""

    def __init__(self, text: str) -> None:
        self.places: dict[Path, int] = {}
        self._text = text
        self._at = 0
        self._line = 1
        self._counted = 0
        self._lengths: dict[Path, int] = {}
        """Items so far of each array of tables."""
        table: Path = ()
        while self._skip():
            if self._text.startswith("[", self._at):
                table = self._header()
            else:
                self._pair(table)

    def _here(self) -> int:
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line

    def _skip(self) -> str:
        """Skip blanks, line ends and comments; return the next character, or nothing at the end."""
        match = _BLANK.match(self._text, self._at)
        assert match is not None
        self._at = match.end()
        return self._text[self._at : self._at + 1]

    def _header(self) -> Path:
        """Skip ``[table]`` or ``[[table]]``; return the path of its pairs."""
        line = self._here()
        of_array = self._text.startswith("[[", self._at)
        self._at += 2 if of_array else 1
        keys = self._keys()
        self._at += 2 if of_array else 1
        table: Path = ()
        for key in keys[:-1]:
            table = self._enter((*table, key), line)
        path = (*table, keys[-1])
        if of_array:
            self._lengths[path] = self._lengths.get(path, 0) + 1
        table = self._enter(path, line)
        self.places.setdefault(table, line)
        return table

    def _enter(self, path: Path, line: int) -> Path:
        """Return the table at ``path``; for an array of tables, its last one."""
        self.places.setdefault(path, line)
        return (*path, self._lengths[path] - 1) if path in self._lengths else path

    def _keys(self) -> list[str]:
        keys = []
        while True:
            self._skip()
            match = _KEY.match(self._text, self._at) or _STRING.match(self._text, self._at)
            assert match is not None
            self._at = match.end()
            keys.append(_plain(match[0]))
            if self._skip() != ".":
                return keys
            self._at += 1

    def _pair(self, table: Path) -> None:
        line = self._here()
        path = table
        for key in self._keys():
            path = (*path, key)
            self.places.setdefault(path, line)
        self._at += 1  # the sign
        self._skip()
        self._value(path)

    def _value(self, path: Path) -> None:
        first = self._text[self._at]
        if first in "[{":
            self._at += 1
            index = 0
            while self._skip() not in "]}":
                if first == "[":
                    item = (*path, index)
                    self.places[item] = self._here()
                    self._value(item)
                    index += 1
                else:
                    self._pair(path)
                if self._skip() == ",":
                    self._at += 1
            self._at += 1
        else:
            match = _STRING.match(self._text, self._at) or _BARE.match(self._text, self._at)
            assert match is not None
            self._at = match.end()


def _plain(key: str) -> str:
    if key[0] not in "\"'":
        return key
    return _UNESCAPE.sub(_character, key[1:-1]) if key[0] == '"' else key[1:-1]


def _character(escape: re.Match[str]) -> str:
    code = escape[1] or escape[2]
    return chr(int(code, 16)) if code else _ESCAPES.get(escape[3], escape[3])
