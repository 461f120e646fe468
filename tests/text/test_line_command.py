"""A command that translates: however it buffers, dies or miscounts, each text gets its line or an error says why."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from vlcli.text import line_command
from vlcli.text.line_command import LineCommand, TranslationFailed

MANY = [f"line {i}" for i in range(20_000)]  # more than a pipe holds, in both directions


def run(command, *calls, **options):
    """What each call gives; the command is ended well."""
    translator = LineCommand(command, "en", "de", **options)
    try:
        found = [translator.translate(texts) for texts in calls]
        translator.finish()
    finally:
        translator.close()
    return found


def failure(command, *calls, **options):
    with pytest.raises(TranslationFailed) as failed:
        run(command, *calls, **options)
    assert failed.value.exit_code == 1
    return failed.value


def python(program):
    return f"{sys.executable} -c '{program}'"


def test_one_process_answers_all_calls():
    [a], [b], none, [c] = run(
        python("import os, sys\nfor line in sys.stdin: print(os.getpid())"), "x", "y", [], "z"
    )
    assert a == b == c
    assert none == []


@pytest.mark.parametrize(
    "command",
    ["cat", "sed s/x/y/", "tac | tac", python("import sys; sys.stdout.write(sys.stdin.read()[:-1])")],
)
def test_buffering_neither_blocks_nor_loses(command):
    calls = [MANY, ["a"], MANY[:9]]
    assert run(command, *calls, patience=0.2) == calls


def test_what_waits_for_the_end_of_its_input_is_noticed_once(monkeypatch):
    waited = []
    real = line_command.time.monotonic
    monkeypatch.setattr(line_command.time, "monotonic", lambda: (waited.append(1), real())[1])
    calls = [["a"], ["b"], ["c"], ["d"]]
    assert run("tac", *calls, patience=0.1) == calls
    assert len(waited) == 2, (
        "looked at the clock when it got stuck and when it answered, in the first call alone"
    )


def test_what_is_slow_to_start_is_not_taken_for_one_that_waits():
    slow = python("import os, sys, time; time.sleep(1.2)\nfor line in sys.stdin: print(os.getpid())")
    [a], [b], [c], [d] = run(slow, "a", "b", "c", "d", patience=0.3)
    assert a != b, "the first was ended"
    assert b == c == d, "the second was given time"


def test_what_ends_well_between_two_calls_is_started_anew():
    calls = [["a", "b"], ["c"], ["d", "e"], ["f"]]
    assert run("head -n 2", *calls, patience=0.2) == calls


def test_the_languages_are_told_twice():
    command = "read x; echo {source}-{target} $VLCLI_SOURCE ${VLCLI_TARGET} {0}; cat > /dev/null"
    assert run(command, ["x"]) == [["en-de en de {0}"]]


def test_line_breaks_inside_a_text_are_spaces_and_space_around_an_answer_goes():
    assert run("sed 's/.*/ <&>\\r/'", ["a\nb", "c\r\nd", "e\u2028f", ""], patience=0.2) == [
        ["<a b>", "<c d>", "<e f>", "<>"]
    ]


@pytest.mark.parametrize(
    ("command", "calls", "said"),
    [
        ("exit 3", ["a"], "it ended with exit status 3 and has written 0 lines for 1"),
        (
            "no-such-program 2> /dev/null",
            ["a"],
            "it ended with exit status 127 and has written 0 lines for 1",
        ),
        ("head -n 2; exit 4", [["a", "b", "c"]], "it ended with exit status 4 and has written 2 lines for 3"),
        ("cat; exit 5", ["a"], "it ended with exit status 5 and has written 1 line for 1"),
        ("kill -9 $$", ["a"], "it ended with signal SIGKILL and has written 0 lines for 1"),
        ("head -n 2", [["a", "b"], ["c", "d", "e"]], "it ended and has written only 2 lines for 3"),
        ("true", ["a"], "it ended and has written only 0 lines for 1"),
        ("head -n 2", [MANY], "it ended and has written only 2 lines for 20,000"),
        ("grep -v b", [["a", "b"]], "it ended and has written only 1 line for 2"),
        ("read x; echo ready; echo $x; cat", ["a"], "it has written 2 lines for 1, not one for each"),
        ("cat; echo more", ["a"], "it has written 2 lines for 1, not one for each"),
        ("sed p", [["a", "b"]], "it has written 4 lines for 2, not one for each"),
        ("read x; printf '\\377\\n'; cat > /dev/null", ["a"], "line 1 of its output is not UTF-8"),
        ("read x; printf 'a\\n\\377'; cat > /dev/null", [["a", "b"]], "line 2 of its output is not UTF-8"),
    ],
)
def test_what_goes_wrong_is_one_line(command, calls, said):
    error = failure(command, *calls, patience=0.2)
    assert str(error) == f"--translator {command!r} (en-de): {said}"
    assert error.out_of_step == ("not one for each" in said)


def test_a_line_too_many_is_found_at_once_or_before_the_next_text():
    """The banner answers the first text; its own answer comes when nothing is asked any more."""
    late = python("import sys, time; print(1)\nfor line in sys.stdin:\n time.sleep(0.2); print(2)")
    translator = LineCommand(late, "en", "de")
    try:
        assert translator.translate(["a"]) == ["1"]
        time.sleep(0.6)
        with pytest.raises(TranslationFailed, match="has written 2 lines for 1, not one for each") as failed:
            translator.translate(["b"])
        assert failed.value.out_of_step
    finally:
        translator.close()


def test_endless_output_is_stopped(monkeypatch):
    monkeypatch.setattr(line_command, "LONGEST", 1 << 20)
    assert "not one for each" in str(failure("yes", ["a"]))
    assert "a line of more than 1 MiB" in str(failure("read x; tr '\\0' x < /dev/zero", ["a"]))


def group_is_gone(group):
    """Whether no process of a group is left; one that nobody waits for yet is as good as gone."""
    for _ in range(100):
        listed = subprocess.run(["ps", "-A", "-o", "pgid=,stat="], capture_output=True, text=True, check=True)
        states = [line.split()[1] for line in listed.stdout.splitlines() if line.split()[0] == str(group)]
        if all(state.startswith("Z") for state in states):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("stubborn", ["", "trap '' TERM; "])
def test_close_ends_all_that_was_started(monkeypatch, stubborn):
    monkeypatch.setattr(line_command, "_GRACE", 0.3)
    translator = LineCommand(f"{stubborn}sleep 600 | cat | sleep 600", "en", "de")
    threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGUSR1)).start()

    class Stop(Exception):
        pass

    def stop(*_):
        raise Stop

    before = signal.signal(signal.SIGUSR1, stop)
    try:
        with pytest.raises(Stop):
            translator.translate(["a"])
        group = translator._process.pid
    finally:
        signal.signal(signal.SIGUSR1, before)
        translator.close()
    assert group_is_gone(group)
    with pytest.raises(ChildProcessError):
        os.waitpid(group, os.WNOHANG)
    translator.close()  # a second time does nothing


def test_other_braces_are_the_shells():
    assert run("awk '{print $1; fflush()}'", ["a b"], patience=0.2) == [["a"]]
