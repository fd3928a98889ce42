# Types the session of docs/session.md at a terminal, and prints that page. `session.rs` runs this text in front
# of `terminal.py`, which has `Terminal` and starts the scenario that the arguments name.

PAGE = """# A session at a terminal

The test `the_session_is_the_documented_one` types these lines on a pty, as root and as an ordinary user, and
compares the terminal's text with this page. `$ ` is the prompt of the shell outside, `# ` that of the shell in
the namespaces. `^C` and `^Z` are the keys Ctrl-C and Ctrl-Z.
`INSTA_UPDATE=always cargo test -p nsexec-cli --test kernel the_session` writes the page anew.

## A shell in namespaces

The shell is root and process 1. Ctrl-C ends the `sleep` in it, and the shell goes on. Its exit status is that of
nsexec.

{inside}
## Ctrl-Z and fg

Ctrl-Z stops the command. The shell outside has its prompt again, and continues the command with `fg`.

{stopped}
The same keys work in the shell inside.

{job}
## Errors

{errors}
## nsexec doctor

`nsexec doctor` tries a launch without the command, and names the cause of a failure.

{doctor}"""


class Session:
    """An interactive shell at a terminal, and the text that it shows."""

    def __init__(self):
        with open(".bashrc", "w") as rc:
            rc.write("set +o emacs +o history\n[ $$ = 1 ] && PS1='# ' || PS1='$ '\n")
        path = os.path.dirname(NSEXEC) + ":" + os.environ["PATH"]
        # The session depends on no other variable of the tester. CI is set: libraries colour their output by it.
        os.environ.clear()
        os.environ.update(HOME=os.getcwd(), TERM="dumb", LC_ALL="C", PATH=path, CI="true")
        # The shell starts after the terminal has its size: bash and clap read it.
        self.terminal = Terminal("sh", "-c", "read go; exec bash")
        fcntl.ioctl(self.terminal.fd, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
        self.terminal.type("go\n")
        self.wait("$ ")
        self.start = len(self.terminal.seen) - 2

    def wait(self, prompt, *, after=0):
        """Waits until the terminal's last line is this prompt and nothing else."""
        until_read(self.terminal, lambda: self.terminal.seen[after:].endswith(b"\n" + prompt.encode()))

    def line(self, text, prompt="$ "):
        """Types a line, and waits for the prompt after its output."""
        after = len(self.terminal.seen)
        self.terminal.type(text + "\n")
        self.wait(prompt, after=after)

    def command(self, text, name):
        """Types a line, and waits until its command runs in the foreground."""
        after = len(self.terminal.seen)
        self.terminal.type(text + "\n")
        self.in_foreground(name, after, text)

    def in_foreground(self, name, after, shown):
        """Waits until the terminal shows this line and a process of this name has the terminal and is not stopped."""
        line = shown.encode() + b"\r\n"
        terminal = self.terminal
        until_read(terminal, lambda: line in terminal.seen[after:] and foreground(terminal, name))

    def foregrounds(self, name, shown, typed="fg"):
        """Continues a stopped job, whose command the shell shows."""
        after = len(self.terminal.seen)
        self.terminal.type(typed + "\n")
        self.in_foreground(name, after + len(typed), shown)

    def key(self, key, shown, prompt="$ "):
        """Types a key that is a signal, and waits for the prompt.

        The terminal sends the signal before it echoes the key. The shell's output may come before the echo, so
        the echo is moved to the place where the key was typed."""
        terminal = self.terminal
        at, echo, end = len(terminal.seen), shown.encode(), b"\n" + prompt.encode()

        def rest():
            before, found, after = terminal.seen[at:].partition(echo)
            return before + after if found else b""

        terminal.type(key)
        until_read(terminal, lambda: rest().endswith(end))
        terminal.seen = terminal.seen[:at] + echo + rest()

    def part(self):
        """Returns the text since the last part, without the prompt at its end, as a block of the page."""
        seen = self.terminal.seen[self.start:-2].decode().replace("\r\n", "\n")
        self.start = len(self.terminal.seen) - 2
        return f"```text\n{seen}```\n"


def until_read(terminal, happened):
    """Reads the terminal until this has happened."""
    end = time.monotonic() + LIMIT
    while not happened():
        assert time.monotonic() < end, f"it did not come: {terminal.seen!r}"
        terminal.read(0.01)


def foreground(terminal, name):
    """Returns true if the terminal's foreground group has a process of this name that is not stopped."""
    group = os.tcgetpgrp(terminal.fd)
    for pid in descendants(terminal.pid):
        try:
            own, _, rest = open(f"/proc/{pid}/stat").read().partition("(")[2].rpartition(") ")
            letter, _, pgrp = rest.split()[:3]
        except (OSError, ValueError):
            continue
        if own == name and int(pgrp) == group and letter not in "TZ":
            return True
    return False


def descendants(pid):
    """Returns the pids of all descendants of this process."""
    try:
        children = open(f"/proc/{pid}/task/{pid}/children").read().split()
    except OSError:
        return []
    return children + [below for child in children for below in descendants(child)]


def inside(session):
    session.line("nsexec run -r -p --mount-proc -- bash", "# ")
    session.line("id -u; echo $$; echo /proc/[0-9]*", "# ")
    session.command("sleep 100", "sleep")
    session.key("\x03", "^C", "# ")
    session.line("echo $?", "# ")
    session.line("exit 7")
    session.line("echo $?")
    return session.part()


def stopped(session):
    session.command("nsexec run -r -- sleep 100", "sleep")
    session.key("\x1a", "^Z")
    session.line("jobs")
    session.foregrounds("sleep", "nsexec run -r -- sleep 100")
    session.key("\x03", "^C")
    session.line("echo $?")
    return session.part()


def job(session):
    session.line("nsexec run -r -p --mount-proc -- bash", "# ")
    session.command("sleep 100", "sleep")
    session.key("\x1a", "^Z", "# ")
    session.foregrounds("sleep", "sleep 100")
    session.key("\x03", "^C", "# ")
    session.line("exit 0")
    return session.part()


def errors(session):
    session.line("nsexec run -r -- no-such-command")
    session.line("echo $?")
    session.line("nsexec run -r --mount-prok -- bash")
    session.line("echo $?")
    return session.part()


def doctor(session):
    session.line("nsexec doctor -r -p --mount-proc -- bash | tail -n 1")
    session.line("nsexec doctor -r -- no-such-command | tail -n 2")
    return session.part()


def session_page():
    session = Session()
    parts = {part.__name__: part(session) for part in (inside, stopped, job, errors, doctor)}
    leave(session.terminal)
    print(PAGE.format(**parts), end="")


