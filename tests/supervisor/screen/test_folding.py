"""Long lines go on in the next one, at a blank where there is one."""

import io

from supervisor.cli.events import _Printer
from supervisor.screen.folding import fold, folded


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_line_is_folded_at_its_blanks():
    said = "a ping; the host's net.ipv4.ping_group_range does not allow it"
    assert fold(said, 30) == ["a ping; the host's", "net.ipv4.ping_group_range does", "not allow it"]
    assert fold("192.168.127.254 and", 6) == ["192.16", "8.127.", "254", "and"]
    assert fold("short", 6) == ["short"]
    assert fold("", 6) == [""]


def test_the_lines_behind_the_first_are_indented_and_no_wider():
    assert fold("  stops: it is pinned elsewhere", 16, 4) == ["  stops: it is", "    pinned", "    elsewhere"]
    assert fold("  /a/long/path and", 8, 4) == ["  /a/lon", "    g/pa", "    th", "    and"]
    assert fold("名前 名前 名前", 7, 2) == ["名前", "  名前", "  名前"], "a character may take two columns"


def test_a_terminal_gets_folded_sentences_and_a_program_whole_lines(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    line = "  stops: " + "a sentence that is longer than the terminal is wide " * 2
    assert folded(line, io.StringIO()) == line
    shown = folded(line, Terminal()).splitlines()
    assert len(shown) > 2
    assert all(len(each) <= 40 for each in shown)
    assert {each[:4] for each in shown[1:]} == {"    "}


def test_the_sentence_of_an_event_stays_in_its_column(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "60")
    event = {
        "time": 0.0,
        "event": "spoof",
        "message": "port 3 (db) sends from addresses that are pinned elsewhere",
    }
    _Printer(Terminal()).show(event)
    day, first, *more = capsys.readouterr().out.splitlines()
    assert len(day) == 10
    assert first[8:].startswith("  spoof           port 3 (db)")
    assert more
    assert {each[:26] for each in more} == {" " * 26}
    assert all(len(each) <= 60 for each in (first, *more))
