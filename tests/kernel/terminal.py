"""Simulates a user at a terminal: starts programs on a pty, types, reads, and waits for LIMIT at most.

`terminal.py NSEXEC SCENARIO`: exits with status 0 if the scenario passed.
"""

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time

LIMIT = 60
NSEXEC = sys.argv[1]
PYTHON = "/usr/bin/python3"


class Terminal:
    """A pty, and the program that leads its session."""

    def __init__(self, *argv):
        self.seen = b""
        self.mark = 0
        # Waits until the child has reset its signals: from now on typed keys must reach the program, not
        # Python's handler, and the terminal must have its session.
        ready, go = os.pipe()
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            os.write(go, b".")
            os.execvp(argv[0], argv)
        os.read(ready, 1)
        os.close(ready)
        os.close(go)

    def type(self, text):
        os.write(self.fd, text.encode())

    def read(self, seconds):
        """Reads one piece of output. Returns false without output, or if every process has closed the terminal."""
        if not select.select([self.fd], [], [], seconds)[0]:
            return False
        try:
            piece = os.read(self.fd, 4096)
        except OSError:
            return False
        self.seen += piece
        return bool(piece)

    def expect(self, *words):
        """Waits for these words in the output, in this order, after the word that was expected before."""
        end = time.monotonic() + LIMIT
        for word in words:
            while (at := self.seen.find(word.encode(), self.mark)) < 0:
                if time.monotonic() > end:
                    raise AssertionError(f"{word!r} did not come: {self.seen!r}")
                self.read(0.1)
            self.mark = at + len(word)

    def runs(self, name):
        """Waits until a descendant of the leader has this name.

        Output of a shell that then executes the program would be too early a sign: dash catches SIGINT until its
        exec, which discards a pending Ctrl-C."""
        end = time.monotonic() + LIMIT
        while name not in names(self.pid):
            assert time.monotonic() < end, f"no {name}: {self.seen!r}"
            self.read(0.01)

    def status(self):
        """Returns the exit status of the leader, as a shell reports it."""
        end = time.monotonic() + LIMIT
        while True:
            self.read(0.01)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                while self.read(0.05):
                    pass
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
            if time.monotonic() > end:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise AssertionError(f"the end did not come: {self.seen!r}")


def names(pid):
    """Returns the names of all descendants of this process."""
    try:
        pids = open(f"/proc/{pid}/task/{pid}/children").read().split()
        return {open(f"/proc/{child}/comm").read().strip() for child in pids}.union(*map(names, pids))
    except OSError:
        return set()


def same(a, b, terminal=None):
    if a != b:
        raise AssertionError(f"{a!r} is not {b!r}: {terminal and terminal.seen!r}")


def shell():
    """Starts an interactive shell, which has job control."""
    terminal = Terminal("bash", "--norc", "--noprofile", "--noediting", "-i")
    terminal.type("PS1='ready'\"> \"; set +o history; export LC_ALL=C\n")
    terminal.expect("ready> ")
    return terminal


def leave(terminal):
    terminal.type("exit 0\n")
    same(terminal.status(), 0, terminal)


COUNTER = """
import signal, sys, time
count = 0
def take(*_):
    global count
    count += 1
signal.signal(signal.SIGINT, take)
print("o" + "n", flush=True)
end = time.monotonic() + 60
while not count and time.monotonic() < end: time.sleep(0.01)
time.sleep(0.3)
print("interrupts:", count, flush=True)
sys.exit(3)
"""

PLACES = ([], ["-r"], ["-r", "-p"])


def interrupt_ends_a_command_without_a_handler():
    for place in PLACES:
        terminal = Terminal(NSEXEC, "run", "-f", *place, "--", "sleep", "100")
        terminal.runs("sleep")
        terminal.type("\x03")
        same(terminal.status(), 130, terminal)


def interrupt_at_any_moment_of_the_launch():
    for place in PLACES:
        for milliseconds in range(12):
            terminal = Terminal(NSEXEC, "run", "-f", *place, "--", "sleep", "100")
            time.sleep(milliseconds / 1000)
            terminal.type("\x03")
            same(terminal.status(), 130, terminal)
            assert terminal.seen.count(b"\n") <= 2, f"more than one line: {terminal.seen!r}"


def interrupt_arrives_once_at_a_handler():
    for place in PLACES:
        terminal = Terminal(NSEXEC, "run", "-f", *place, "--", PYTHON, "-I", "-S", "-c", COUNTER)
        terminal.expect("on")
        terminal.type("\x03")
        same(terminal.status(), 3, terminal)
        terminal.expect("interrupts: 1")


def quit_ends_a_command_without_a_handler():
    for place in PLACES:
        terminal = Terminal(NSEXEC, "run", "-f", *place, "--", "sleep", "100")
        terminal.runs("sleep")
        terminal.type("\x1c")
        same(terminal.status(), 131, terminal)


def interrupt_reaches_a_pipeline():
    terminal = shell()
    terminal.type(f"{NSEXEC} run -- sleep 100 | cat; echo \"status ${{PIPESTATUS[0]}}\"\n")
    terminal.runs("sleep")
    terminal.type("\x03")
    terminal.expect("ready> ")
    terminal.type("echo still o''n\n")
    terminal.expect("still on")
    leave(terminal)


def suspend_and_foreground():
    for place in PLACES:
        terminal = shell()
        terminal.type(f"{NSEXEC} run {' '.join(place)} -- sleep 100\n")
        terminal.runs("sleep")
        terminal.type("\x1a")
        terminal.expect("Stopped", "ready> ")
        terminal.type("jobs\n")
        terminal.expect("Stopped", "ready> ")
        terminal.type("fg\n")
        terminal.expect("sleep 100", "\n")
        time.sleep(0.1)
        terminal.type("\x03")
        terminal.expect("ready> ")
        terminal.type("echo status $?\n")
        terminal.expect("status 130")
        leave(terminal)


def suspend_in_the_background_and_end():
    terminal = shell()
    # A program without children: a Ctrl-Z during a vfork would stop the child, and the parent's wait for it
    # cannot be stopped.
    script = "import sys, time; print(sys.argv[1], flush=True); time.sleep(0.5); print(*sys.argv[2:]); sys.exit(9)"
    terminal.type(f"{NSEXEC} run -- {PYTHON} -I -S -c '{script}' o''n do''ne\n")
    terminal.expect("\non\r")
    terminal.type("\x1a")
    terminal.expect("Stopped", "ready> ")
    time.sleep(0.7)
    assert b"done" not in terminal.seen, f"it went on: {terminal.seen!r}"
    terminal.type("bg; wait %1; echo status $?\n")
    terminal.expect("done", "status 9")
    leave(terminal)


def inner_shell_has_job_control():
    for place in PLACES:
        outer = shell()
        outer.type(f"{NSEXEC} run {' '.join(place)} -- bash --norc --noprofile --noediting -i\n")
        outer.type("PS1='inside'\"> \"\n")
        outer.expect("inside> ")
        assert b"no job control" not in outer.seen, outer.seen
        outer.type("sleep 100\n")
        time.sleep(0.3)
        outer.type("\x1a")
        outer.expect("Stopped", "inside> ")
        outer.type("bg; jobs\n")
        outer.expect("Running", "inside> ")
        outer.type("fg\n")
        time.sleep(0.3)
        outer.type("\x03")
        outer.expect("inside> ")
        outer.type("echo status $?; exit 7\n")
        outer.expect("status 130", "ready> ")
        outer.type("echo out''side $?\n")
        outer.expect("outside 7")
        leave(outer)


def interrupt_reaches_an_inner_shell():
    terminal = Terminal(NSEXEC, "run", "-f", "--", "bash", "--norc", "--noprofile", "--noediting", "-i")
    terminal.type("PS1='inside'\"> \"\n")
    terminal.expect("inside> ")
    terminal.type("echo half a line")
    terminal.type("\x03")
    terminal.expect("inside> ")
    terminal.type("echo still o''n $$\n")
    terminal.expect("still on 1")
    terminal.type("exit 5\n")
    same(terminal.status(), 5, terminal)


# Process 1 of a pid namespace cannot stop itself (pid_namespaces(7)).
NOT_FIRST = (["-r"], ["-r", "-u"])


def suspend_in_an_inner_shell_stops_the_job():
    for place in NOT_FIRST:
        outer = shell()
        outer.type(f"{NSEXEC} run {' '.join(place)} -- bash --norc --noprofile --noediting -i\n")
        outer.type("PS1='inside'\"> \"\n")
        outer.expect("inside> ")
        for _ in range(2):
            outer.type("suspend\n")
            outer.expect("Stopped", "ready> ")
            outer.type("fg\n")
            outer.expect("inside> ")
            outer.type("echo st''ill here\n")
            outer.expect("still here", "inside> ")
        outer.type("exit 7\n")
        outer.expect("ready> ")
        outer.type("echo out''side $?\n")
        outer.expect("outside 7")
        leave(outer)


def the_terminal_ends_a_command_that_is_stopped():
    script = "import os, signal\nprint('o' + 'n', flush=True)\nos.kill(os.getpid(), signal.SIGSTOP)\nsignal.pause()"
    for place in NOT_FIRST:
        for key, status in ("\x03", 130), ("\x1c", 131):
            terminal = Terminal(NSEXEC, "run", "-f", *place, "--", PYTHON, "-I", "-S", "-c", script)
            terminal.expect("on")
            (command,) = open(f"/proc/{terminal.pid}/task/{terminal.pid}/children").read().split()
            until("the command has stopped", lambda: state(command) == "T")
            terminal.type(key)
            same(terminal.status(), status, terminal)


def state(pid):
    """Returns the letter of a process's state."""
    return open(f"/proc/{pid}/stat").read().rpartition(") ")[2][0]


def until(what, happened):
    end = time.monotonic() + LIMIT
    while not happened():
        assert time.monotonic() < end, f"timed out waiting: {what}"
        time.sleep(0.01)


def stop_of_only_the_command_does_not_stop_the_job():
    script = "import time\nprint('o' + 'n', flush=True)\ntime.sleep(0.5)\nprint('go' + 'ne on', flush=True)"
    for place in PLACES:
        terminal = Terminal(NSEXEC, "run", "-f", *place, "--", PYTHON, "-I", "-S", "-c", script)
        terminal.expect("on")
        (command,) = open(f"/proc/{terminal.pid}/task/{terminal.pid}/children").read().split()
        os.kill(int(command), signal.SIGSTOP)
        until("the command has stopped", lambda: state(command) == "T")
        time.sleep(0.2)
        same(state(terminal.pid), "S", terminal)
        os.kill(int(command), signal.SIGCONT)
        terminal.expect("gone on")
        same(terminal.status(), 0, terminal)


def a_background_job_that_reads_is_stopped():
    for place in PLACES:
        terminal = shell()
        terminal.type(f"{NSEXEC} run {' '.join(place)} -- sh -c 'read line; echo got $line' &\n")
        terminal.expect("ready> ")
        # The shell reports the stop at its next prompt.
        end = time.monotonic() + LIMIT
        while b"Stopped" not in terminal.seen[terminal.mark:]:
            assert time.monotonic() < end, f"it was not stopped: {terminal.seen!r}"
            terminal.type("\n")
            terminal.expect("ready> ") if terminal.seen.find(b"ready> ", terminal.mark) >= 0 else terminal.read(0.1)
            time.sleep(0.05)
        terminal.type("fg\n")
        time.sleep(0.2)
        terminal.type("some words\n")
        terminal.expect("got some words", "ready> ")
        leave(terminal)


def hang_up_ends_the_command():
    terminal = Terminal(NSEXEC, "run", "-f", "--", "sleep", "100")
    terminal.runs("sleep")
    os.close(terminal.fd)
    end = time.monotonic() + LIMIT
    while not (found := os.waitpid(terminal.pid, os.WNOHANG))[0]:
        assert time.monotonic() < end, "it lives on without a terminal"
        time.sleep(0.01)
    same(os.waitstatus_to_exitcode(found[1]), 129)


def command_has_the_callers_terminal():
    script = "import os; print(os.isatty(0), os.ttyname(0) == os.ttyname(1), os.tcgetpgrp(0) == os.getpgrp(), os.open('/dev/tty', os.O_RDWR) > 2)"
    terminal = Terminal(NSEXEC, "run", "-f", "-r", "--", PYTHON, "-I", "-S", "-c", script)
    same(terminal.status(), 0, terminal)
    terminal.expect("True True True True")


def size_change_is_signalled_once():
    script = "import os, signal, sys, time\nn = []\nsignal.signal(signal.SIGWINCH, lambda *_: n.append(tuple(os.get_terminal_size(0))))\nprint('o' + 'n', flush=True)\nend = time.monotonic() + 60\nwhile not n and time.monotonic() < end: time.sleep(0.01)\ntime.sleep(0.3)\nprint(n)"
    terminal = Terminal(NSEXEC, "run", "-f", "--", PYTHON, "-I", "-S", "-c", script)
    terminal.expect("on")
    fcntl.ioctl(terminal.fd, termios.TIOCSWINSZ, struct.pack("4H", 33, 77, 0, 0))
    same(terminal.status(), 0, terminal)
    terminal.expect("[(77, 33)]")



APART = r"""
import os, signal, sys, time
child = os.fork()
name = "inner" if child == 0 else "outer"
def take(number, _):
    os.write(1, f"{name} got {number}\n".encode())
    if child: os.waitpid(child, 0)
    os._exit(7)
for number in (signal.SIGINT, signal.SIGQUIT): signal.signal(number, take)
signal.signal(signal.SIGWINCH, lambda number, _: os.write(1, f"{name} got {number}\n".encode()))
os.write(1, f"{name} on\n".encode())
# Short sleeps: Python acts on a signal that comes right before a sleep only after it.
end = time.monotonic() + 10
while time.monotonic() < end: time.sleep(0.01)
"""


def apart(*words):
    """Starts a command with a session of its own and a child in its process group. Waits until both are ready."""
    terminal = Terminal(NSEXEC, "run", "-f", *words, "--new-session", "--", PYTHON, "-I", "-S", "-c", APART)
    end = time.monotonic() + LIMIT
    while not (b"inner on" in terminal.seen and b"outer on" in terminal.seen):
        assert time.monotonic() < end, terminal.seen
        terminal.read(0.1)
    return terminal


def signals_reach_the_whole_group_of_another_session():
    for place in PLACES:
        for typed, number in (("\x03", signal.SIGINT), ("\x1c", signal.SIGQUIT)):
            terminal = apart(*place)
            terminal.type(typed)
            same(terminal.status(), 7, terminal)
            for name in ("inner", "outer"):
                same(terminal.seen.count(f"{name} got {int(number)}\r".encode()), 1, terminal)


def size_change_reaches_the_whole_group_of_another_session():
    terminal = apart()
    fcntl.ioctl(terminal.fd, termios.TIOCSWINSZ, struct.pack("4H", 33, 77, 0, 0))
    end = time.monotonic() + LIMIT
    while terminal.seen.count(f" got {int(signal.SIGWINCH)}\r".encode()) < 2:
        assert time.monotonic() < end, terminal.seen
        terminal.read(0.1)
    terminal.type("\x03")
    same(terminal.status(), 7, terminal)


def states(pid):
    """Returns name and state of all descendants of this process."""
    found = []
    for child in open(f"/proc/{pid}/task/{pid}/children").read().split():
        name, state = open(f"/proc/{child}/stat").read().split("(", 1)[1].rsplit(") ", 1)
        found += [(name, state[0])] + states(child)
    return found


def supervises(terminal):
    """Waits until the launcher has blocked SIGTSTP: from then on it passes a Ctrl-Z on."""
    (launcher,) = open(f"/proc/{terminal.pid}/task/{terminal.pid}/children").read().split()
    end = time.monotonic() + LIMIT
    while True:
        status = dict(line.split(":", 1) for line in open(f"/proc/{launcher}/status"))
        if int(status["SigBlk"], 16) >> signal.SIGTSTP - 1 & 1:
            return
        assert time.monotonic() < end, status
        terminal.read(0.01)


def suspend_and_foreground_of_another_session():
    for place in PLACES:
        terminal = shell()
        terminal.type(f"{NSEXEC} run {' '.join(place)} --new-session -- sh -c 'sleep 100; exit 3'\n")
        terminal.runs("sleep")
        supervises(terminal)
        terminal.type("\x1a")
        terminal.expect("Stopped", "ready> ")
        end = time.monotonic() + LIMIT
        while not {("sh", "T"), ("sleep", "T")} <= set(states(terminal.pid)):
            assert time.monotonic() < end, states(terminal.pid)
            terminal.read(0.05)
        terminal.type("fg\n")
        terminal.expect("sleep 100", "\n")
        end = time.monotonic() + LIMIT
        while "T" in dict(states(terminal.pid)).values():
            assert time.monotonic() < end, states(terminal.pid)
            terminal.read(0.05)
        terminal.type("\x03")
        terminal.expect("ready> ")
        terminal.type("echo status $?\n")
        terminal.expect("status 130")
        leave(terminal)


TYPE = """
import fcntl, os, sys, termios
try:
    os.open("/dev/tty", os.O_RDWR)
    print("has a terminal")
except OSError:
    print("has none")
def tries(request, argument):
    try:
        fcntl.ioctl(0, request, argument)
        return "done"
    except OSError as error:
        return "refused"
print("typing", tries(termios.TIOCSTI, b"x"), "pasting", tries(0x541C, bytes([3])))
"""


def a_container_cannot_type_into_the_terminal():
    terminal = shell()
    terminal.type(f"{NSEXEC} run -r -n -- sleep 100 &\n")
    terminal.runs("sleep")
    # The program has become the command.
    (target,) = open(f"/proc/{terminal.pid}/task/{terminal.pid}/children").read().split()
    path = f"/tmp/type.{os.getpid()}.py"
    with open(path, "w") as file:
        file.write(TYPE)
    try:
        terminal.type(f"{NSEXEC} enter -t {target} -a -- {PYTHON} -I -S {path}\n")
        terminal.expect("has none", "typing refused pasting refused", "ready> ")
    finally:
        os.unlink(path)
    terminal.type("kill %1; wait\n")
    terminal.expect("ready> ")
    leave(terminal)


globals()[sys.argv[2]]()
