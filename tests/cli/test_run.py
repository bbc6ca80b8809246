"""``run``: a command in its turn, with its streams, signals and exit code, and the limit that its end tells of."""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import psutil
import pytest
import redis

from tests.cli.programs import (
    LONGEST_SECONDS,
    PROGRAM,
    Outcome,
    Output,
    do,
    environment,
    on_terminal,
    run,
    wait_for_listener,
)
from tests.conftest import Place
from tests.servers import RedisServer, eventually, free_port

CTRL_C, CTRL_Z = "\x03", "\x1a"
CURL_429 = "curl: (22) The requested URL returned error: 429"
GEMINI = "[API Error: You have exhausted your capacity on this model. Your quota will reset after 50s.]"
REFUSED = f"echo '{CURL_429}' >&2; exit 22"

Here = Callable[..., Outcome]


@pytest.fixture
def here(real: Place, capfd: pytest.CaptureFixture[str]) -> Here:
    """Runs ``run`` within this process, which is faster, and what it runs as processes of their own."""

    def here(*arguments: str, url: str | None = None) -> Outcome:
        from rate_coordinator.cli import main

        capfd.readouterr()
        code = main(["--url", url or real.url, "--namespace", real.namespace, "run", *arguments])
        return Outcome(code, *capfd.readouterr())

    return here


@contextmanager
def begun(place: Place, *arguments: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Start ``run`` as a process, and end it and what it runs afterwards."""
    piped = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([PROGRAM, "run", *arguments], env=environment(place), **{**piped, **options}) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                for below in psutil.Process(process.pid).children(recursive=True):
                    below.kill()
                process.kill()


def python(program: str) -> list[str]:
    """Return the command that runs a program in Python."""
    return ["--", sys.executable, "-u", "-c", program]


def shell(script: str) -> list[str]:
    return ["--", "/bin/sh", "-c", script]


def wait_for(condition: Callable[[], Any]) -> Any:
    return asyncio.run(eventually(condition, LONGEST_SECONDS))


def printed_by(process: subprocess.Popen[bytes]) -> Output:
    assert process.stdout is not None
    return Output(process.stdout.fileno())


# Streams.


def test_what_it_reads_and_prints_passes_byte_by_byte(real: Place, tmp_path: Path) -> None:
    """More than a pipe holds, in both streams at once, and nothing of it text."""
    given = random.Random(7).randbytes(5_000_001)
    (tmp_path / "given").write_bytes(given)
    program = (
        "import os, sys, threading\n"
        "given = sys.stdin.buffer.read()\n"
        "other = threading.Thread(target=lambda: sys.stderr.buffer.write(given[::-1]))\n"
        "other.start(); sys.stdout.buffer.write(given); other.join(); sys.exit(3)"
    )
    with (tmp_path / "given").open("rb") as stdin:
        done = subprocess.run(
            [PROGRAM, "run", "x", *python(program)],
            env=environment(real),
            stdin=stdin,
            capture_output=True,
            timeout=LONGEST_SECONDS,
            check=False,
        )
    assert done.returncode == 3
    assert done.stdout == given
    assert done.stderr == given[::-1]


def test_it_answers_prompts_that_end_with_no_newline(real: Place) -> None:
    with begun(real, "x", *python("print('hello', input('name? '))")) as process:
        output = printed_by(process)
        output.until("name? ")
        assert process.stdin is not None
        process.stdin.write(b"you\n")
        process.stdin.flush()
        assert output.rest() == "name? hello you\n"
        assert process.wait(LONGEST_SECONDS) == 0


def test_two_streams_to_one_place_keep_their_order(real: Place) -> None:
    program = "import os\nfor n in range(2000): os.write(1 + n % 2, b'%d\\n' % n)"
    with begun(real, "x", *python(program), stderr=subprocess.STDOUT) as process:
        assert process.communicate(timeout=LONGEST_SECONDS)[0].split() == [b"%d" % n for n in range(2000)]


def test_output_without_end_takes_no_more_memory_and_waits_for_its_reader(real: Place, tmp_path: Path) -> None:
    count = tmp_path / "count"
    program = (
        "import os, sys, pathlib\nn, count = 0, pathlib.Path(sys.argv[1])\n"
        "while True: n += os.write(1, bytes(1 << 20)); count.write_text(str(n))"
    )
    with begun(real, "x", *python(program), str(count)) as process:
        assert process.stdout is not None
        left = 150_000_000
        while left > 0:
            left -= len(process.stdout.read(min(left, 1 << 20)))
        written = wait_for(lambda: count.exists() and (text := count.read_text()) and int(text))
        assert written < 160_000_000
        assert psutil.Process(process.pid).memory_info().rss < 150_000_000


def waiting_in(descriptor: int) -> int:
    """Return how many bytes can be read."""
    return int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_a_stream_that_others_made_nonblocking_loses_nothing(real: Place) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with begun(real, "x", *python("import os; os.write(1, bytes(300_000))"), stdout=writing) as process:
        os.close(writing)
        wait_for(lambda: waiting_in(reading) == fcntl.fcntl(reading, fcntl.F_GETPIPE_SZ))
        with open(reading, "rb") as stdout:
            assert len(stdout.read()) == 300_000
        assert process.wait(LONGEST_SECONDS) == 0


def test_a_reader_that_goes_away_ends_the_command_as_it_would_without_us(real: Place) -> None:
    done = subprocess.run(
        ["/bin/bash", "-c", f"'{PROGRAM}' run x -- yes | head -1; exit ${{PIPESTATUS[0]}}"],
        env=environment(real),
        capture_output=True,
        text=True,
        timeout=LONGEST_SECONDS,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("y\n", "", 141)


def test_a_disk_that_is_full_is_told(real: Place) -> None:
    with open("/dev/full", "wb") as full, begun(real, "x", "--", "yes", stdout=full) as process:
        _, err = process.communicate(timeout=LONGEST_SECONDS)
        assert process.returncode == 141
        assert err == b"rate-coordinator: the command's output: No space left on device\n"


def test_streams_that_are_closed_harm_nothing(real: Place) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f"exec '{PROGRAM}' run x -- sh -c 'echo out; echo err >&2; exit 5' >&- 2>&- <&-"],
        env=environment(real),
        timeout=LONGEST_SECONDS,
        check=False,
    )
    assert done.returncode == 5


def test_a_program_that_is_left_behind_holds_up_nothing(here: Here) -> None:
    outcome = here("x", *shell("sleep 300 & echo $!"))
    os.kill(int(outcome.out), signal.SIGKILL)
    assert outcome.code == 0


def test_what_a_last_helper_prints_after_the_command_is_passed_on(here: Here) -> None:
    assert here("x", *shell("(sleep 0.2; echo late) & echo first")).out == "first\nlate\n"


def test_descriptors_and_signals_are_inherited_as_they_were(real: Place) -> None:
    """A process substitution is a descriptor; nohup is a signal that is ignored."""
    program = (
        "import signal, sys; print(open(sys.argv[1]).read(), signal.getsignal(signal.SIGHUP).name,"
        " signal.getsignal(signal.SIGCHLD).name, signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    )
    begin = f"trap '' HUP; '{PROGRAM}' run x -- '{sys.executable}' -c {shlex.quote(program)} <(printf given)"
    done = subprocess.run(
        ["/bin/bash", "-c", begin],
        env=environment(real),
        capture_output=True,
        text=True,
        timeout=LONGEST_SECONDS,
        check=False,
    )
    assert done.stdout == "given SIG_IGN SIG_DFL set()\n", done.stderr


# Terminals.

TELL = "import os, sys; print([os.isatty(n) for n in range(3)], os.get_terminal_size(int(sys.argv[1])))"


def test_a_command_on_a_terminal_sees_one_of_its_size(real: Place) -> None:
    with on_terminal(real, "run", "x", *python(TELL), "1") as terminal:
        assert terminal.end() == 0
        assert "[True, True, True]" in terminal.output.text
    with on_terminal(real, "run", "x", *python("import os, signal\n" + WAIT_FOR_SIZE)) as terminal:
        terminal.output.until("ready\r\n")
        terminal.resize(33, 99)
        assert terminal.end() == 0
        assert terminal.output.text == "ready\r\ncolumns=99, lines=33\r\n"


WAIT_FOR_SIZE = """
def tell(*_):
    size = os.get_terminal_size(1)
    if size.lines == 33:
        print(f'columns={size.columns}, lines={size.lines}')
        os._exit(0)
signal.signal(signal.SIGWINCH, tell)
print('ready')
while True:
    signal.pause()
"""


def test_only_streams_that_are_terminals_become_ones(real: Place) -> None:
    command = f"'{PROGRAM}' run x -- '{sys.executable}' -c {shlex.quote(TELL)} 2 | cat"
    with on_terminal(real, program=["/bin/sh", "-c", command]) as terminal:
        terminal.resize(20, 50)
        assert terminal.end() == 0
        assert "[True, False, True]" in terminal.output.text


def test_a_terminal_gets_bytes_as_they_are_and_can_be_typed_into(real: Place) -> None:
    program = "import tty, os; tty.setraw(0); os.write(1, b'a\\nb\\r\\n\\x1b[1m'); os.write(2, os.read(0, 1) * 3)"
    with on_terminal(real, "run", "x", *python(program)) as terminal:
        terminal.output.until("\x1b[1m")
        terminal.type("z")
        assert terminal.end() == 0
        assert terminal.output.text == "a\nb\r\n\x1b[1mzzz"


def test_on_a_terminal_what_it_says_stands_on_a_line_of_its_own(real: Place) -> None:
    with on_terminal(real, "run", "x", *shell(f"printf '{CURL_429}'; exit 22")) as terminal:
        assert terminal.end() == 22
        assert terminal.output.text.startswith(f"{CURL_429}\r\n\r\x1b[Krate-coordinator: x refused; ")


# How it ends.


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -9 $$", 137), ("kill -15 $$", 143)]
)
def test_it_exits_as_a_shell_tells_of_the_command(here: Here, script: str, code: int) -> None:
    outcome = here("x", *shell(script))
    assert outcome.code == code
    assert outcome.err == ""


@pytest.mark.parametrize(("command", "code"), [("no-such-command", 127), ("/no/such", 127), ("", 127), ("/", 126)])
def test_a_command_that_cannot_be_run_is_told_at_once(real: Place, here: Here, command: str, code: int) -> None:
    do(real, "report", "x", "600")
    outcome = here("x", "--", command)
    assert outcome.code == code
    assert outcome.err.startswith(f"rate-coordinator: {command}: ")
    assert len(outcome.err.splitlines()) == 1


def test_a_command_that_the_system_refuses_is_told(here: Here, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("of no known kind")
    script.chmod(0o755)
    assert here("x", "--", str(script)).code == 126
    assert here("x", *shell("exit 0")).code == 0


def test_arguments_of_the_command_are_its_own(here: Here) -> None:
    program = "import sys; print(ascii(sys.argv[1:]))"
    outcome = here("x", "--model", "m", *python(program), "--model", "y", "--", "-h", "", "\udcff")
    assert outcome.out == "['--model', 'y', '--', '-h', '', '\\udcff']\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["x"],
        ["x", "--"],
        ["--", "true"],
        ["x", "true"],
        ["x", "true", "--", "true"],
        ["x", "--attempts", "0", "--", "true"],
        ["x", "--timeout", "soon", "--", "true"],
        ["x", "--guess-seconds", "-1", "--", "true"],
        ["x", "--job-id", "j" * 1025, "--", "true"],
        ["x", "--job-id", "\udcff", "--", "true"],
        ["a\nb", "--", "true"],
        ["x", "--json", "--", "true"],
    ],
    ids=lambda arguments: " ".join(arguments)[:40].encode("unicode_escape").decode(),
)
def test_wrong_usage_runs_nothing_and_is_told_in_one_line(here: Here, arguments: list[str]) -> None:
    outcome = here(*arguments)
    assert outcome.code == 2
    assert outcome.out == ""
    assert len(outcome.err.splitlines()) == 1


def test_json_is_refused_because_stdout_is_the_commands_own(real: Place) -> None:
    outcome = do(real, "--json", "run", "x", "--", "true")
    assert outcome.code == 2
    assert "standard output is the command's own" in outcome.err


def test_within_a_process_it_leaves_signals_as_they_were(here: Here) -> None:
    def state() -> list[object]:
        numbers = [signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGWINCH]
        return [signal.pthread_sigmask(signal.SIG_BLOCK, []), *map(signal.getsignal, numbers)]

    before = state()
    here("x", "--", "true")
    assert state() == before


# Limits.


@pytest.mark.parametrize(
    ("script", "seconds"),
    [
        (REFUSED, 5),
        (f"printf 'HTTP/2 429\\r\\nretry-after: 40\\r\\n\\r\\n'; {REFUSED}", 40),
        (f"echo '{GEMINI}'; exit 1", 50),
        ('seq 100; echo "Claude AI usage limit reached|$(($(date +%s) + 3000))"; seq 100 >&2; exit 1', 3000),
    ],
    ids=["curl", "curl -i", "gemini", "claude"],
)
def test_a_limit_that_a_failed_run_tells_of_is_shared(
    real: Place, here: Here, script: str, seconds: int, admin: redis.Redis
) -> None:
    outcome = here("x", "--model", "m", "--job-id", "nightly", *shell(script))
    assert outcome.code in {1, 22}
    said = outcome.err.splitlines()[-1]
    assert said.startswith("rate-coordinator: x/m refused; it is limited for ")
    (limit,) = do(real, "status", "--json").json["limits"]
    assert (limit["target"], limit["job_id"]) == ("x/m", "nightly")
    assert seconds - 60 < limit["wait_seconds"] <= seconds


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
@pytest.mark.parametrize(("options", "seconds"), [("-sSf", 5), ("-sSfi", 40), ("-sS --fail-with-body -i", 40)])
def test_what_curl_itself_prints_is_understood(real: Place, here: Here, options: str, seconds: int) -> None:
    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(429)
            self.send_header("Retry-After", "40")
            self.end_headers()
            self.wfile.write(b'{"error": "too many"}')

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        outcome = here("x", "--", "curl", *options.split(), f"http://127.0.0.1:{server.server_port}/")
        server.shutdown()
    assert outcome.code == 22
    (limit,) = do(real, "status", "--json").json["limits"]
    assert limit["wait_seconds"] == seconds


def test_another_process_sees_the_limit_of_a_run(real: Place) -> None:
    assert run(real, "run", "x", "--guess-seconds", "2m", *shell(REFUSED)).code == 22
    outcome = run(real, "check", "x")
    assert outcome.code == 75
    assert 60 < float(outcome.out) <= 120


def test_a_long_limit_counts_as_far_as_the_cap(here: Here) -> None:
    script = f"echo 'Claude AI usage limit reached|{int(time.time()) + 5 * 3600}'; exit 1"
    assert "limited for 3600.0 s" in here("x", *shell(script)).err
    assert "limited for 17" in here("y", "--max-wait", "6h", *shell(script)).err


@pytest.mark.parametrize(
    "script",
    [
        f"echo 'HTTP/1.1 429 Too Many Requests'; echo '{CURL_429}' >&2",
        "echo 'the tests failed: 429 of them' >&2; exit 1",
        f"echo '{CURL_429}' >&2; echo 'ValueError: another' >&2; exit 1",
    ],
    ids=["success", "no limit", "another error"],
)
def test_what_is_no_refusal_reports_nothing(real: Place, here: Here, script: str, admin: redis.Redis) -> None:
    """P45: neither is a 429 in the output of a success, nor one before the real error."""
    outcome = here("x", *shell(script))
    assert "rate-coordinator" not in outcome.err
    assert admin.exists(real.keys.events) == 0


def test_it_waits_until_the_limit_lifts(real: Place, here: Here) -> None:
    began = time.monotonic()
    do(real, "report", "x", "1")
    assert here("x", "--", "true").code == 0
    assert time.monotonic() - began >= 1.0


def test_it_gives_up_when_the_limit_outlasts_the_timeout(real: Place, here: Here, tmp_path: Path) -> None:
    do(real, "report", "x", "600")
    outcome = here("x", "--timeout", "1", "--", "touch", str(tmp_path / "ran"))
    assert outcome.code == 75
    assert outcome.err.startswith("rate-coordinator: x: still limited for ")
    assert not (tmp_path / "ran").exists()


def test_quiet_says_nothing_of_its_own(real: Place, here: Here) -> None:
    assert here("x", "--quiet", *shell(REFUSED)).err == f"{CURL_429}\n"
    assert here("x", "-q", "--timeout", "0", "--", "true").err == ""
    assert here("x", "-q", "--", "true", url=f"redis://localhost:{free_port()}").err == ""


# Attempts.

SECOND_TIME = """
import pathlib, sys, time
times = pathlib.Path(sys.argv[1])
with times.open('a') as file:
    print(time.monotonic(), file=file)
print(sys.stdin.read(), end='')
if len(times.read_text().split()) <= int(sys.argv[2]):
    sys.exit('curl: (22) The requested URL returned error: 429')
"""


def attempts_at(path: Path) -> list[float]:
    return [float(line) for line in path.read_text().split()]


def test_after_a_limit_it_is_run_again_when_that_has_lifted(real: Place, tmp_path: Path) -> None:
    times, given = tmp_path / "times", tmp_path / "given"
    given.write_text("skipped\ngiven\n")
    with given.open("rb") as stdin:
        os.lseek(stdin.fileno(), len("skipped\n"), os.SEEK_SET)
        options = ["--attempts", "3", "--guess-seconds", "1"]
        with begun(real, "x", *options, *python(SECOND_TIME), str(times), "1", stdin=stdin) as process:
            out, err = process.communicate(timeout=LONGEST_SECONDS)
    assert process.returncode == 0
    assert out == b"given\ngiven\n"
    assert err.splitlines()[-1].endswith(b"; 2 more to try")
    first, second = attempts_at(times)
    assert second - first >= 1.0


def test_after_the_last_attempt_it_exits_with_the_commands_own_code(here: Here, tmp_path: Path) -> None:
    times = tmp_path / "times"
    outcome = here("x", "--attempts", "2", "--guess-seconds", "0.1", *python(SECOND_TIME), str(times), "9")
    assert outcome.code == 1
    assert len(attempts_at(times)) == 2


def test_an_attempt_that_would_wait_for_too_long_leaves_the_code_of_the_one_before(here: Here, tmp_path: Path) -> None:
    times = tmp_path / "times"
    options = ["--attempts", "3", "--guess-seconds", "60", "--timeout", "1"]
    outcome = here("x", *options, *python(SECOND_TIME), str(times), "9")
    assert outcome.code == 1
    assert len(attempts_at(times)) == 1
    assert "longer than the timeout allows" in outcome.err


def test_a_failure_that_is_no_limit_is_not_tried_again(here: Here, tmp_path: Path) -> None:
    script = f"echo x >> {tmp_path / 'runs'}; exit 1"
    assert here("x", "--attempts", "5", *shell(script)).code == 1
    assert (tmp_path / "runs").read_text() == "x\n"


def test_standard_input_that_cannot_be_read_again_allows_one_attempt_only(real: Place) -> None:
    with begun(real, "x", "--attempts", "2", "--", "true") as process:
        _, err = process.communicate(timeout=LONGEST_SECONDS)
    assert process.returncode == 2
    assert b"not a pipe" in err


# Without Redis.


def test_without_redis_it_runs_all_the_same_with_one_warning(here: Here) -> None:
    away = f"redis://user:s3cr3t@localhost:{free_port()}"
    outcome = here("x", *shell("echo ran; exit 4"), url=away)
    assert (outcome.code, outcome.out) == (4, "ran\n")
    (line,) = outcome.err.splitlines()
    assert line.startswith("rate-coordinator: Redis cannot be heard")
    assert "s3cr3t" not in line


def test_without_redis_a_limit_counts_for_its_own_attempts(here: Here, tmp_path: Path) -> None:
    away, times = f"redis://localhost:{free_port()}", tmp_path / "times"
    outcome = here("x", "--attempts", "2", "--guess-seconds", "1", *python(SECOND_TIME), str(times), "1", url=away)
    assert outcome.code == 0
    assert "which no other process knows" in outcome.err
    first, second = attempts_at(times)
    assert second - first >= 1.0


def test_a_redis_that_goes_away_meanwhile_leaves_the_commands_output_alone(redis_server: RedisServer) -> None:
    program = python("print('ready'); print(input())")
    with RedisServer(redis_server.binary) as server, begun(Place(server.url, "test"), "x", *program) as process:
        printed_by(process).until("ready\n")
        server.stop()
        # Whoever listens to Redis notices at once; that much time is left to say so.
        time.sleep(0.5)
        out, err = process.communicate(b"done\n", timeout=LONGEST_SECONDS)
        assert (process.returncode, out, err) == (0, b"done\n", b"")


def test_redis_can_be_required(here: Here) -> None:
    outcome = here("x", "--require-redis", *shell("echo ran"), url=f"redis://localhost:{free_port()}")
    assert (outcome.code, outcome.out) == (1, "")
    assert len(outcome.err.splitlines()) == 1


# Signals.

COUNT = """
import signal, sys
counts = {}
def count(number, _):
    name = signal.Signals(number).name
    counts[name] = counts.get(name, 0) + 1
    print(name)
    if number == signal.SIGUSR2:
        print(sorted(counts.items()))
        sys.exit(9)
for name in 'HUP INT QUIT TERM USR1 USR2 CONT'.split():
    signal.signal(getattr(signal, 'SIG' + name), count)
print('ready')
while True:
    signal.pause()
"""


def test_signals_are_forwarded_once_each_and_in_order(real: Place) -> None:
    with begun(real, "x", *python(COUNT)) as process:
        output = printed_by(process)
        output.until("ready")
        names = ["SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGCONT", "SIGUSR2"]
        for name in names:
            process.send_signal(getattr(signal, name))
            output.until(f"{name}\n")
        counted = output.rest().splitlines()[-1]
        assert counted == str(sorted((name, 1) for name in names))
        assert process.wait(LONGEST_SECONDS) == 9


def test_ctrl_c_on_a_terminal_reaches_the_command_once(real: Place) -> None:
    with on_terminal(real, "run", "x", *python(COUNT)) as terminal:
        terminal.output.until("ready")
        terminal.type(CTRL_C)
        terminal.output.until("SIGINT")
        # What was sent before it was forwarded before it.
        terminal.process.send_signal(signal.SIGUSR2)
        assert terminal.end() == 9
        assert "[('SIGINT', 1), ('SIGUSR2', 1)]" in terminal.output.text


def test_a_command_that_a_signal_ends_is_not_tried_again(real: Place, tmp_path: Path) -> None:
    script = f'trap "{REFUSED.replace("echo", "echo ended;echo")}" TERM; echo ready; while :; do sleep 0.05; done'
    options = ["--attempts", "3", "--guess-seconds", "0.1"]
    with begun(real, "x", *options, *shell(script), stdin=subprocess.DEVNULL) as process:
        output = printed_by(process)
        output.until("ready")
        process.send_signal(signal.SIGTERM)
        assert process.wait(LONGEST_SECONDS) == 22
        assert output.rest() == "ready\nended\n"


def test_it_stops_once_though_the_same_signal_waits_already() -> None:
    """The terminal's own SIGTSTP may not have been taken yet when the command is seen to have stopped."""
    program = (
        "import os, signal, sys; from rate_coordinator.cli.signals import stop_as\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTSTP}); os.kill(os.getpid(), signal.SIGTSTP)\n"
        "stop_as(signal.SIGTSTP); print('went on', flush=True)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, process_group=0) as process:
        wait_for(lambda: is_stopped(psutil.Process(process.pid)))
        process.send_signal(signal.SIGCONT)
        assert process.communicate(timeout=LONGEST_SECONDS)[0] == b"went on\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_while_it_waits_a_signal_ends_it_at_once(
    real: Place, admin: redis.Redis, number: signal.Signals, code: int
) -> None:
    do(real, "report", "x", "600")
    with begun(real, "x", *shell("echo ran")) as process:
        wait_for_listener(admin, real)
        process.send_signal(number)
        out, err = process.communicate(timeout=LONGEST_SECONDS)
        assert (process.returncode, out, err) == (code, b"", b"")


def test_on_a_terminal_it_counts_down_and_ctrl_c_ends_that(real: Place) -> None:
    do(real, "report", "x", "600")
    with on_terminal(real, "run", "x", "--", "true") as terminal:
        terminal.output.until(" s left, until ")
        terminal.type(CTRL_C)
        assert terminal.end() == 130
        assert terminal.output.text.endswith("\r\x1b[K")


def is_stopped(process: psutil.Process) -> bool:
    return bool(process.status() == psutil.STATUS_STOPPED)


def test_stopping_it_stops_the_command_and_continuing_it_continues_both(real: Place) -> None:
    with begun(real, "x", *python("print('ready'); print(input())"), process_group=0) as process:
        output = printed_by(process)
        output.until("ready\n")
        ours = psutil.Process(process.pid)
        (theirs,) = ours.children()
        for _ in range(2):
            process.send_signal(signal.SIGTSTP)
            wait_for(lambda: is_stopped(ours) and is_stopped(theirs))
            process.send_signal(signal.SIGCONT)
            wait_for(lambda: not is_stopped(ours) and not is_stopped(theirs))
        assert process.communicate(b"going on\n", timeout=LONGEST_SECONDS)[0] == b"going on\n"
        assert process.returncode == 0


def test_a_shell_can_stop_it_from_the_terminal_and_bring_it_back(real: Place) -> None:
    begin = f"'{PROGRAM}' run x -- '{sys.executable}' -u -c \"print('rea' + 'dy'); print(input()[::-1])\""
    with on_terminal(real, program=["/bin/bash", "--norc", "--noediting", "-i"], PS1="$ ") as terminal:
        terminal.type(f"{begin}\n")
        terminal.output.until("ready")
        terminal.type(CTRL_Z)
        terminal.output.until("Stopped")
        terminal.type("fg\n")
        terminal.type("kcab\n")
        terminal.output.until("back")
        terminal.type("exit 6\n")
        assert terminal.end() == 6


# How it starts.


def test_other_commands_do_not_load_what_only_run_needs(real: Place) -> None:
    program = (
        "import sys; from rate_coordinator.cli import main; code = main(['check', 'openai'])\n"
        "sys.exit(code or not {'rate_coordinator.answers', 'rate_coordinator.cli.child'}.isdisjoint(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], env=environment(real), timeout=LONGEST_SECONDS, check=False)
    assert done.returncode == 0
