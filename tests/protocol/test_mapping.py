"""The mapping tool: its argv, its environment and descriptors, its failures, and its death.

Runs as root, as the parent of a stage 0 that is an ordinary user, and so needs newuidmap and newgidmap for
more than one line. The tools in the message are scripts that write down what they see. Then they execute the
real tool, fail in some way, or block until the test ends or kills them.
"""

import os
import signal
import unittest

import fixture
import parent
from parent import FLAG, message

NEWUIDMAP, NEWGIDMAP = "/usr/bin/newuidmap", "/usr/bin/newgidmap"

RECORD = """#!/bin/sh
# The tests' mapping tool. Runs as the ordinary user, in the caller's namespaces; stage 0 waits for it.
here={folder}/{name}
(/bin/ls -l /proc/$$/fd > $here.fds)
/bin/cat /proc/$$/environ > $here.environ
/bin/cat /proc/self/status > $here.status
for word in "$@"; do echo "$word"; done > $here.argv
echo $$ > $here.new
/bin/mv $here.new $here.pid
{then}
"""


def lines_of(count, first_host):
    """`count` lines: container 0 is the user itself, all others are single ids of its range."""
    return "".join([f"0 {first_host} 1\n"] + [f"{i} {fixture.FIRST + i} 1\n" for i in range(1, count)])


class Mapping(fixture.ProtocolTest):
    def setUp(self):
        super().setUp()
        self.user = fixture.ordinary_user()

    def tool(self, name, then):
        path = os.path.join(self.scratch, name)
        with open(path, "w") as file:
            file.write(RECORD.format(folder=self.scratch, name=name, then=then))
        os.chmod(path, 0o755)
        return path

    def seen(self, name, what):
        with open(os.path.join(self.scratch, f"{name}.{what}"), "rb") as file:
            return file.read()

    def message(self, lines=2, uidtool=NEWUIDMAP, gidtool=NEWGIDMAP, flags=FLAG["user"] | FLAG["pid"], **more):
        return message(flags, uidmap=lines_of(lines, self.user.uid), gidmap=lines_of(lines, self.user.gid),
                       setgroup=True, rootless=True, uidtool=uidtool, gidtool=gidtool, **more)

    def blocked(self, **how):
        """A bootstrap that is blocked in the mapping tool: stages 0 and 1 are alive."""
        tool = self.tool("uid", "exec /bin/sleep 600")
        run = self.start(user=self.user, **how)
        run.send(self.message(uidtool=tool))
        path = os.path.join(self.scratch, "uid.pid")
        run.until(lambda: os.path.exists(path) or run.pid in run.statuses, "the tool runs")
        self.tool_pid = int(self.seen("uid", "pid"))
        parent.wait_until(lambda: parent.status_of(self.tool_pid)["Name"] == "sleep", parent.LIMIT, "the tool blocks")
        run.stage1 = int(self.seen("uid", "argv").split()[0])
        run.watch_process(run.stage1)
        return run

    def end_tool(self, run):
        try:
            os.kill(self.tool_pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        if self.tool_pid in parent.own_children():
            run.watch_process(self.tool_pid)
            run.wait(self.tool_pid)


class Lines(Mapping):
    def test_1_to_340_lines_through_the_real_tools(self):
        """All lines or an error: 1 to 340 lines; the last case fills one write."""
        for count in (2, 5, 6, 7, 20, 340):
            with self.subTest(lines=count):
                uid = self.tool("uid", f'exec {NEWUIDMAP} "$@"')
                gid = self.tool("gid", f'exec {NEWGIDMAP} "$@"')
                run = self.hold(data=self.message(count, uid, gid), user=self.user)
                for name, host in (("uid", self.user.uid), ("gid", self.user.gid)):
                    want = lines_of(count, host).split()
                    self.assertEqual(self.seen(name, "argv").decode().split(), [str(run.stage1)] + want)
                    with open(f"/proc/{run.stage2}/{name}_map") as file:
                        found = sorted(tuple(map(int, line.split())) for line in file)
                    numbers = list(map(int, want))
                    self.assertEqual(found, sorted(zip(numbers[::3], numbers[1::3], numbers[2::3])))
                self.release(run)
                for name in os.listdir(self.scratch):
                    os.unlink(os.path.join(self.scratch, name))

    def test_real_tools_directly(self):
        run = self.start(user=self.user)
        run.like_init(self.message(20))
        self.assertHandedOver(run)
        update = [text for text in run.texts("0") if text.startswith("update ")]
        self.assertEqual(update, [
            f"update /proc/{run.stage1}/uid_map to '{lines_of(20, self.user.uid)}'",
            f"update /proc/{run.stage1}/uid_map got -EPERM (trying {NEWUIDMAP})",
            f"update /proc/{run.stage1}/gid_map to '{lines_of(20, self.user.gid)}'",
            f"update /proc/{run.stage1}/gid_map got -EPERM (trying {NEWGIDMAP})"])

    def test_one_line_needs_no_tool(self):
        run = self.start(user=self.user)
        run.like_init(message(FLAG["user"], uidmap=f"0 {self.user.uid} 1\n", gidmap=f"0 {self.user.gid} 1\n",
                              rootless=True, uidtool="/nonexistent", gidtool="/nonexistent"))
        self.assertHandedOver(run)

    def test_sigchld_ignored(self):
        """With SIG_IGN the kernel would reap the tool, and its status would be lost."""
        run = self.start("/bin/cat", "/proc/self/status", user=self.user, ignored=(signal.SIGCHLD,))
        run.like_init(self.message())
        run.finish()
        self.assertEqual(run.statuses[run.stage2], 0, run.describe())
        self.assertEqual(int(parent.parse_status(run.out)["SigIgn"], 16), parent.ignored_mask([signal.SIGCHLD]))

    def test_sigchld_ignored_and_blocked_and_a_failing_tool(self):
        for how in ({"ignored": (signal.SIGCHLD,)}, {"blocked": (signal.SIGCHLD,)}):
            run = self.start(user=self.user, **how)
            run.send(self.message(uidtool=self.tool("uid", "exit 7")))
            self.assertToolFailed(run, "new ?uid ?map", "7")

    def assertToolFailed(self, run, *words):
        text = self.assertRefused(run, *words, records=(1, 2))
        self.assertEqual(run.fatal()[0].stage, "0")
        self.assertNotIn("become root", text)
        return text


class Sight(Mapping):
    def test_signals_and_descriptors_of_the_tool(self):
        """/bin/sleep as the tool: it takes the numbers as seconds, and can be inspected meanwhile."""
        extra = {}
        for number in (5, 9, 42):
            extra[number] = os.open("/dev/zero", os.O_RDONLY)
        blocked = (signal.SIGUSR1, signal.SIGTERM)
        try:
            run = self.start(user=self.user, extra=extra, init_fd=7, log_fd=11, blocked=blocked,
                             ignored=(signal.SIGHUP, signal.SIGCHLD))
            run.send(self.message(3, "/bin/sleep"))
        finally:
            for fd in extra.values():
                os.close(fd)

        def tool():
            with open(f"/proc/{run.pid}/task/{run.pid}/children") as file:
                found = [int(word) for word in file.read().split()]
            return [pid for pid in found if parent.status_of(pid)["Name"] == "sleep"]
        self.tool_pid, = parent.wait_until(tool, parent.LIMIT, "the tool runs")
        parent.wait_until(lambda: parent.status_of(self.tool_pid)["State"][0] == "S", parent.LIMIT, "the tool sleeps")
        with open(f"/proc/{self.tool_pid}/cmdline", "rb") as file:
            argv = file.read().decode().split("\0")
        with open(f"/proc/{self.tool_pid}/environ", "rb") as file:
            self.assertEqual(file.read(), b"")
        stage1, = [pid for pid in parent.own_children() if pid != run.pid]
        self.assertEqual(argv, ["/bin/sleep", str(stage1), *lines_of(3, self.user.uid).split(), ""])
        self.assertEqual(sorted(parent.descriptors_of(self.tool_pid)), [0, 1, 2])
        status = parent.status_of(self.tool_pid)
        self.assertEqual(int(status["SigBlk"], 16), parent.mask(blocked))
        # SIGCHLD too: only stage 0 resets it, for its own wait.
        self.assertEqual(f"{int(status['SigIgn'], 16):x}", f"{parent.ignored_mask([signal.SIGHUP, signal.SIGCHLD]):x}")
        self.assertEqual(int(status["SigPnd"], 16) | int(status["ShdPnd"], 16), 0)
        self.end_tool(run)
        self.assertRefused(run, records=(1, 2))

    def test_tool_lists_its_environment_and_descriptors(self):
        uid = self.tool("uid", f'exec {NEWUIDMAP} "$@"')
        gid = self.tool("gid", f'exec {NEWGIDMAP} "$@"')
        run = self.start(user=self.user)
        run.like_init(self.message(3, uid, gid))
        self.assertHandedOver(run)
        for name in ("uid", "gid"):
            rows = self.seen(name, "fds").decode().splitlines()[1:]
            # The shell holds the script open, at 10 or so.
            own = [row for row in rows if not row.endswith(f" {self.scratch}/{name}")]
            numbers = sorted(int(row.rsplit(" -> ", 1)[0].split()[-1]) for row in own)
            self.assertEqual(numbers, [0, 1, 2], rows)
            self.assertEqual(self.seen(name, "environ"), b"")

    def test_stage_names_while_the_tool_runs(self):
        run = self.blocked()
        self.assertEqual(parent.status_of(run.pid)["Name"], "runc:[0:PARENT]")
        self.assertEqual(parent.status_of(run.stage1)["Name"], "runc:[1:CHILD]")
        self.assertEqual(int(parent.status_of(run.stage1)["PPid"]), os.getpid())
        self.assertEqual(int(parent.status_of(self.tool_pid)["PPid"]), run.pid)
        self.assertEqual(run.init_bytes, b"")
        self.end_tool(run)
        self.assertRefused(run, "(?i)sigkill|signal 9|killed", records=(1, 2))


class Failures(Mapping):
    def fail(self, then, *words, which="uid"):
        tools = {"uidtool": NEWUIDMAP, "gidtool": NEWGIDMAP, which + "tool": self.tool(which, then)}
        run = self.start(user=self.user)
        run.send(self.message(3, **tools))
        text = self.assertRefused(run, *words, records=(1, 2))
        self.assertEqual(run.fatal()[0].stage, "0", "the cause comes first")
        self.assertNotIn("become root", "".join(record.text for record in run.fatal()))
        self.assertNotIn("Success", text)
        return text

    def test_tool_killed_by_sigkill(self):
        for which in ("uid", "gid"):
            self.fail("kill -9 $$", f"new ?{which} ?map", "(?i)sigkill|signal 9|killed", which=which)

    def test_tool_exits_0_without_writing(self):
        for which in ("uid", "gid"):
            self.fail("exit 0", f"{which}_?map|new{which}map|{which}$", which=which)

    def test_tool_writes_another_map(self):
        """The tool maps less than its arguments."""
        self.fail(f'exec {NEWUIDMAP} "$1" "$2" "$3" "$4"', "uid")

    def test_exit_status_is_named(self):
        for which in ("uid", "gid"):
            self.fail("exit 3", f"^failed to use new ?{which} ?map on [0-9]+", r"\b3\b", which=which)

    def test_real_tool_refuses(self):
        """Ids that /etc/subuid does not grant."""
        run = self.start(user=self.user)
        lines = "0 1 1\n1 2 1\n"
        run.send(message(FLAG["user"], uidmap=lines, gidmap=lines, setgroup=True, rootless=True,
                         uidtool=NEWUIDMAP, gidtool=NEWGIDMAP))
        self.assertEqual(run.wait_stage0(), 1)
        run.finish()
        self.assertIn(b"newuidmap: ", run.err)  # the tool's own error on our stderr
        self.assertRegex(run.fatal()[0].text, "^failed to use new ?uid ?map on [0-9]+")

    def test_tool_is_missing(self):
        run = self.start(user=self.user)
        run.send(self.message(uidtool="/nonexistent/newuidmap"))
        self.assertRefused(run, "/nonexistent/newuidmap|execv", "No such file or directory", records=(1, 2))

    def test_tool_is_not_in_the_message(self):
        run = self.start(user=self.user)
        run.send(self.message(uidtool=None, gidtool=None))
        self.assertRefused(run, "mapping tool not present", records=(1, 2))

    def test_tool_path_is_not_absolute(self):
        run = self.start(user=self.user)
        run.send(self.message(uidtool="newuidmap"))
        self.assertRefused(run, "newuidmap", records=(1, 2))

    def test_eacces_is_not_eperm(self):
        """Root's maps are too long for one write: they fail, and no tool runs."""
        lines = "".join(f"{i} {100000 + i} 1\n" for i in range(340))
        self.assertGreater(len(lines), 4095)
        run = self.start(user=self.user)
        tool = self.tool("uid", "exit 0")
        run.send(message(FLAG["user"], uidmap=lines, gidmap=lines, setgroup=True, rootless=True, uidtool=tool,
                         gidtool=tool))
        self.assertRefused(run, "map", records=(1, 2))
        self.assertFalse(os.path.exists(os.path.join(self.scratch, "uid.argv")))


class Deaths(Mapping):
    """A process dies while the tool runs. A set-user-id tool may survive, since stage 0 may not kill it."""

    def test_stage_0_killed_while_the_tool_runs(self):
        run = self.blocked()
        os.kill(run.pid, signal.SIGKILL)
        run.until(lambda: run.stage1 in run.statuses, "stage 1 is gone")
        run.until(lambda: run.init_eof and run.log_eof, "EOF on the init pipe and the log pipe")
        self.assertTrue(parent.is_alive(self.tool_pid), "and that while the tool is still there")
        self.end_tool(run)
        run.finish()
        self.assertEqual(run.statuses[run.pid], -signal.SIGKILL)
        self.assertEqual(run.statuses[run.stage1], 1)

    def test_stage_1_killed_while_the_tool_runs(self):
        run = self.blocked()
        os.kill(run.stage1, signal.SIGKILL)
        run.until(lambda: run.pid in run.statuses, "stage 0 notices")
        self.assertEqual(run.statuses[run.pid], 1)
        self.end_tool(run)
        run.finish()
        self.assertEqual(run.init_bytes, b"")
        self.assertEqual(len(run.fatal()), 1, run.describe())
        self.assertRegex(run.fatal()[0].text, "stage-1")
        self.assertRegex(run.fatal()[0].text, "died|dead|killed|gone|exited|ended")

    def test_parent_dies_while_the_tool_runs(self):
        """runc is killed, and its ends of the pipes are closed. No process stays alive, including the
        tool."""
        run = self.blocked()
        run.close_init()
        os.close(run.log_read)
        run.readers.pop(run.log_read)
        run.log_read = None
        run.until(lambda: run.pid in run.statuses, "stage 0 notices")
        self.assertFalse(parent.is_alive(self.tool_pid), "the tool was killed, and reaped by stage 0")
        self.end_tool(run)
        run.finish()
        self.assertEqual(run.statuses[run.pid], 1)

    def test_parent_dies_and_the_tool_succeeds(self):
        uid = self.tool("uid", f'while ! [ -e {self.scratch}/go ]; do /bin/sleep 0.01; done; exec {NEWUIDMAP} "$@"')
        run = self.start(user=self.user)
        run.send(self.message(uidtool=uid))
        run.until(lambda: os.path.exists(os.path.join(self.scratch, "uid.pid")), "the tool runs")
        run.close_init()
        with open(os.path.join(self.scratch, "go"), "w"):
            pass
        run.finish()
        self.assertEqual(run.statuses[run.pid], 1)
        self.assertTrue(run.fatal())


class TimeOffsets(Mapping):
    def test_rootless_with_the_tool(self):
        """The change of ids makes stage 1 non-dumpable, so stage 0 opens the offsets file before it."""
        data = message(FLAG["user"] | FLAG["time"], uidmap=f"0 {fixture.FIRST} 1\n1 {self.user.uid} 1\n",
                       gidmap=f"0 {fixture.FIRST} 1\n1 {self.user.gid} 1\n", setgroup=True, rootless=True,
                       uidtool=NEWUIDMAP, gidtool=NEWGIDMAP, timens="monotonic 86400 0\n")
        run = self.hold(data=data, user=self.user)
        with open(f"/proc/{run.stage2}/timens_offsets") as file:
            self.assertEqual(file.readline().split(), ["monotonic", "86400", "0"])
        self.release(run)


if __name__ == "__main__":
    unittest.main()
