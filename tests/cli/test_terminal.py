"""What a person sees on a terminal."""

from __future__ import annotations

import pytest

from tests.cli.programs import do, on_terminal
from tests.conftest import Place
from tests.servers import RedisServer

CTRL_C = "\x03"


def test_wait_counts_down_and_removes_its_line_when_the_limit_lifts(real: Place) -> None:
    do(real, "report", "claude", "4", "--job-id", "nightly")
    with on_terminal(real, "wait", "claude") as terminal:
        for left in ("2 s left", "1 s left"):
            terminal.output.until(f"claude: {left}, until ")
        assert "(rate_limit, " in terminal.output.text
        assert terminal.end() == 0
        *_, last = terminal.output.text.strip().splitlines()
        assert last.rpartition("\x1b[K")[2].startswith("claude is clear after ")


def test_waiting_outlasts_a_server_that_goes_away(redis_server: RedisServer) -> None:
    with RedisServer(redis_server.binary) as server:
        place = Place(server.url, "test")
        do(place, "report", "claude", "3")
        with on_terminal(place, "wait", "claude") as terminal:
            terminal.output.until("s left")
            server.stop()
            terminal.output.until("[Redis is away] claude: 1 s left")
            assert terminal.end() == 0
            assert "claude is clear after " in terminal.output.text
            assert "Traceback" not in terminal.output.text


def test_ctrl_c_removes_the_countdown_and_exits_with_130(real: Place) -> None:
    do(real, "report", "claude", "600")
    with on_terminal(real, "wait", "claude") as terminal:
        terminal.output.until("s left")
        terminal.type(CTRL_C)
        assert terminal.end() == 130
        assert terminal.output.text.endswith("\r\x1b[K")
        assert "Traceback" not in terminal.output.text


def test_giving_up_on_a_terminal_leaves_one_clean_line(real: Place) -> None:
    do(real, "report", "claude", "600")
    with on_terminal(real, "wait", "claude", "--timeout", "1") as terminal:
        assert terminal.end() == 75
        last = terminal.output.text.rstrip().rpartition("\x1b[K")[2]
        assert last.startswith("rate-coordinator: claude is limited for ")


def test_clearing_everything_asks_first_and_does_it_on_yes(real: Place) -> None:
    do(real, "report", "claude", "600")
    with on_terminal(real, "clear") as terminal:
        asked = terminal.output.until("[y/N] ")
        assert "1 active limit in namespace test " in asked
        assert asked.splitlines()[0].endswith(": claude")
        terminal.type("y\n")
        assert terminal.end() == 0
        assert "cleared 1 limit" in terminal.output.text
    assert do(real, "check", "claude").code == 0


@pytest.mark.parametrize(("answer", "code"), [("n\n", 1), ("\n", 1), ("\x04", 1), (CTRL_C, 130)])
def test_clearing_everything_is_left_alone_on_any_other_answer(real: Place, answer: str, code: int) -> None:
    do(real, "report", "claude", "600")
    with on_terminal(real, "clear") as terminal:
        terminal.output.until("[y/N] ")
        terminal.type(answer)
        assert terminal.end() == code
        assert "Traceback" not in terminal.output.text
    assert do(real, "check", "claude").code == 75


def test_watch_shows_a_table_that_follows_notices(real: Place) -> None:
    with on_terminal(real, "watch", COLUMNS="120", LINES="30") as terminal:
        terminal.output.until("nothing is limited")
        do(real, "report", "claude", "600", "--job-id", "nightly")
        terminal.output.until("job nightly")
        assert "connected" in terminal.output.text
        terminal.type(CTRL_C)
        assert terminal.end() == 130
        # The cursor is shown again.
        assert "\x1b[?25h" in terminal.output.text
        assert "Traceback" not in terminal.output.text
