from __future__ import annotations

from partrain.system.terminal_text import loss_text, num_columns, printable, table


def test_what_would_control_the_terminal_is_replaced() -> None:
    assert printable("a\033[2Jb\n\t\u202e c") == "a\ufffd[2Jb\ufffd\ufffd\ufffd c"
    assert printable("Größe 数字 é") == "Größe 数字 é"


def test_large_losses_have_an_exponent_and_the_others_four_decimals() -> None:
    assert loss_text(0.0294) == "0.0294"
    assert loss_text(3.2119e32) == "3.21e+32"
    assert loss_text(-123456.0) == "-123456.0000"
    assert loss_text(float("nan")) == "nan"


def test_columns_are_those_of_the_terminal() -> None:
    assert num_columns("abc") == 3
    assert num_columns("数字") == 4
    assert num_columns("e\N{COMBINING ACUTE ACCENT}") == 1


def test_table_is_aligned_whatever_the_script() -> None:
    assert table(("class", "n"), [("数字", "1"), ("x", "1000")]) == ["class     n", "数字      1", "x      1000"]
    assert table(("a", "b"), []) == ["a  b"]


def test_columns_of_words_can_stand_anywhere() -> None:
    assert table(("n", "file"), [("1000", "x")], num_words=(1,)) == ["   n  file", "1000  x"]
