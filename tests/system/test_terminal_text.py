from __future__ import annotations

from partrain.system.terminal_text import num_columns, printable, table


def test_what_would_control_the_terminal_is_replaced() -> None:
    assert printable("a\033[2Jb\n\t\u202e c") == "a\ufffd[2Jb\ufffd\ufffd\ufffd c"
    assert printable("Größe 数字 é") == "Größe 数字 é"


def test_columns_are_those_of_the_terminal() -> None:
    assert num_columns("abc") == 3
    assert num_columns("数字") == 4
    assert num_columns("e\N{COMBINING ACUTE ACCENT}") == 1


def test_table_is_aligned_whatever_the_script() -> None:
    assert table(("class", "n"), [("数字", "1"), ("x", "1000")]) == ["class     n", "数字      1", "x      1000"]
    assert table(("a", "b"), []) == ["a  b"]


def test_columns_of_words_can_stand_anywhere() -> None:
    assert table(("n", "file"), [("1000", "x")], num_words=(1,)) == ["   n  file", "1000  x"]
