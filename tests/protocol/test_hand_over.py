"""The result: three children, the right namespaces, and a stage 2 as runc's Go code expects it.

Runs as root, as the parent of `nsexec init`, and as the tracer of stages that are inspected at their exit. It
starts stage 0 as an ordinary user for the rootless rows of docs/protocol.md#groups.
"""

import os
import signal
import unittest

import fixture
import parent
from parent import FLAG, message
from tracer import Tracer

FIVE = sum(FLAG[kind] for kind in ("pid", "mnt", "net", "ipc", "uts"))
ALL_BUT_USER = sum(FLAG[kind] for kind in parent.KINDS if kind != "user")
RANGE = f"0 {fixture.FIRST} 1000\n"


class Traced(fixture.ProtocolTest):
    def trace(self, data, code=0, **how):
        """A bootstrap without a command; every stage is inspected when it begins to exit."""
        run = self.start(**how)
        tracer = Tracer(run)
        run.send(data)
        self.assertEqual(run.wait_stage0(), code, run.describe())
        if code == 0:
            run.read_pids()
        run.finish()
        self.stages = [tracer.named(name) for name in ("runc:[0:PARENT]", "runc:[1:CHILD]", "runc:[2:INIT]")] \
            if code == 0 else None
        return run


class Children(Traced):
    def test_pids_are_our_children(self):
        for manner in ("init", "exec"):
            run = self.hold(manner=manner, data=message(FIVE))
            self.assertNotEqual(run.stage1, run.stage2)
            self.assertIn(run.stage2, parent.own_children())
            self.assertEqual(int(parent.status_of(run.stage2)["PPid"]), os.getpid())
            self.release(run)

    def test_both_manners_of_runc_many_times(self):
        for manner in ("like_init", "like_exec"):
            for _ in range(10):
                run = self.start()
                getattr(run, manner)(message(FIVE))
                self.assertHandedOver(run)

    def test_stage_names(self):
        self.trace(message(FIVE))  # `named` fails if one of the three names is missing
        self.assertEqual(len({stage.pid for stage in self.stages}), 3)

    def test_arbitrary_descriptor_numbers(self):
        for init_fd, log_fd in ((3, 4), (4, 3), (20, 5), (5, 700), (999, 998)):
            run = self.start(init_fd=init_fd, log_fd=log_fd)
            run.like_init(message(0))
            self.assertHandedOver(run)


class Namespaces(Traced):
    def assertNamespaces(self, flags, new=None, **how):
        mine = parent.namespaces_of("self")
        self.trace(message(flags, **how))
        stage0, _, stage2 = self.stages
        self.assertEqual(stage0.namespaces, mine, "stage 0 stays where it was")
        for kind in parent.KINDS:
            if flags & FLAG[kind]:
                self.assertNotEqual(stage2.namespaces[kind], mine[kind], f"{kind} is new")
            else:
                self.assertEqual(stage2.namespaces[kind], mine[kind], f"{kind} is untouched")

    def test_each_kind_alone(self):
        for kind in parent.KINDS:
            with self.subTest(kind=kind):
                maps = {"uidmap": RANGE, "gidmap": RANGE, "setgroup": True} if kind == "user" else {}
                self.assertNamespaces(FLAG[kind], **maps)

    def test_all_kinds(self):
        self.assertNamespaces(sum(FLAG.values()), uidmap=RANGE, gidmap=RANGE, setgroup=True)
        self.assertNamespaces(ALL_BUT_USER)

    def test_pid_1(self):
        self.trace(message(FIVE))
        self.assertEqual(self.stages[2].status["NSpid"].split()[-1], "1")

    def test_created_namespaces_belong_to_the_new_user_namespace(self):
        import fcntl
        run = self.hold(data=message(sum(FLAG.values()), uidmap=RANGE, gidmap=RANGE, setgroup=True))
        user = parent.namespaces_of(run.stage2)["user"]
        for kind in parent.KINDS:
            if kind == "user":
                continue
            with open(f"/proc/{run.stage2}/ns/{kind}") as file:
                owner = fcntl.ioctl(file, 0xB701)  # NS_GET_USERNS
                info = os.fstat(owner)
                os.close(owner)
            self.assertEqual((info.st_dev, info.st_ino), user, kind)
        self.release(run)

    def test_time_offsets_are_in_force(self):
        run = self.hold(data=message(FLAG["time"], timens="monotonic 172800 0\nboottime 604800 5\n"))
        with open(f"/proc/{run.stage2}/timens_offsets") as file:
            offsets = [line.split() for line in file]
        self.assertEqual(offsets, [["monotonic", "172800", "0"], ["boottime", "604800", "5"]])
        self.release(run)

    def test_maps_are_what_was_asked(self):
        lines = f"0 {fixture.FIRST} 10\n10 {fixture.FIRST + 100} 5\n"
        run = self.hold(data=message(FLAG["user"], uidmap=lines, gidmap=lines, setgroup=True))
        for name in ("uid_map", "gid_map"):
            with open(f"/proc/{run.stage2}/{name}") as file:
                self.assertEqual([line.split() for line in file], [line.split() for line in lines.splitlines()])
        self.release(run)

    def test_340_lines_as_root(self):
        lines = "".join(f"{i} {fixture.FIRST + i} 1\n" for i in range(340))
        self.assertEqual(len(lines), 3970)
        run = self.hold(data=message(FLAG["user"], uidmap=lines, gidmap=lines, setgroup=True))
        with open(f"/proc/{run.stage2}/uid_map") as file:
            self.assertEqual(len(file.readlines()), 340)
        self.release(run)

    def test_user_namespace_without_maps(self):
        run = self.start()
        run.send(message(FLAG["user"]))
        self.assertEqual(run.wait_stage0(), 1)
        run.finish()
        self.assertEqual(run.init_bytes, b"")
        self.assertRegex(run.fatal()[0].text, "failed to become root in user namespace|map")


class Stage2(Traced):
    def test_session_leader_and_stdio(self):
        self.trace(message(FIVE))
        stage0, stage1, stage2 = self.stages
        self.assertEqual(stage2.session, stage2.pid)
        self.assertEqual(stage2.status["NSsid"].split()[-1], "1")
        self.assertEqual(stage0.session, os.getsid(0))

    def test_descriptors_are_the_inherited_ones(self):
        extra = {}
        for number in (5, 9, 42):
            fd = os.open("/dev/zero", os.O_RDONLY)
            extra[number] = fd
        try:
            paths = ",".join(f"{kind}:/proc/self/ns/{kind}" for kind in ("net", "uts"))
            for data in (message(FIVE), message(0, paths=paths),
                         message(sum(FLAG.values()), uidmap=RANGE, gidmap=RANGE, setgroup=True,
                                 timens="boottime 5 0\n", oom="10")):
                self.trace(data, extra=extra, init_fd=7, log_fd=11)
                self.assertEqual(sorted(self.stages[2].descriptors), [0, 1, 2, 5, 7, 9, 11, 42])
        finally:
            for fd in extra.values():
                os.close(fd)

    def test_umask_and_cwd_are_inherited(self):
        self.trace(message(FIVE), umask=0o125, cwd="/usr/share")
        self.assertEqual(self.stages[2].status["Umask"], "0125")
        self.assertEqual(self.stages[2].cwd, "/usr/share")

    def test_oom_score_is_inherited(self):
        self.trace(message(FIVE, oom="789"))
        self.assertEqual([stage.oom_score_adj for stage in self.stages], [789] * 3)

    def test_only_the_command_writes_to_stdout(self):
        run = self.start("/bin/echo", "only the command writes")
        run.like_init(message(FIVE))
        self.assertHandedOver(run, out=b"only the command writes\n")

    def signal_state(self, ignored, blocked, log_reader):
        reports = []
        for command in (("/bin/cat", "/proc/self/status"), ()):
            run = self.start(*command, ignored=ignored, blocked=blocked, log_reader=log_reader)
            tracer = Tracer(run) if not command else None
            run.send(message(FIVE, oom="5"))
            run.read_pids()
            run.finish()
            self.assertEqual(run.statuses[run.pid], 0, run.describe())
            self.assertEqual(run.statuses[run.stage2], 0, run.describe())
            reports.append(parent.parse_status(run.out) if command else tracer.named("runc:[2:INIT]").status)
        return reports

    def test_signal_state_is_the_inherited_one(self):
        self.assertSignalStates(True)

    def test_signal_state_after_our_own_sigpipe(self):
        """The log pipe has no reader, so stage 2 had a pending SIGPIPE of its own, which must not survive."""
        self.assertSignalStates(None)

    def assertSignalStates(self, log_reader):
        for ignored, blocked in (((), ()), ((signal.SIGPIPE,), ()), ((), (signal.SIGPIPE, signal.SIGUSR1)),
                                 ((signal.SIGCHLD, signal.SIGHUP), (signal.SIGTERM,))):
            with self.subTest(ignored=[s.name for s in ignored], blocked=[s.name for s in blocked]):
                command, stage2 = self.signal_state(ignored, blocked, log_reader)
                for status in (command, stage2):
                    self.assertEqual(int(status["SigBlk"], 16), parent.mask(blocked))
                    self.assertEqual(int(status["SigPnd"], 16), parent.mask(()))
                    self.assertEqual(int(status["ShdPnd"], 16), parent.mask(()))
                # A Rust main changes signals at its start, so only the command after it shows the inherited
                # state.
                self.assertEqual(f"{int(command['SigIgn'], 16):x}", f"{parent.ignored_mask(ignored):x}")
                self.assertEqual(int(command["SigCgt"], 16), 0)

    def test_sigchld_ignored_by_the_parent_itself(self):
        """The kernel then reaps the stages, and no process waits for another."""
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        try:
            run = self.start(ignored=(signal.SIGCHLD,))
            run.send(message(FIVE))
            run.until(lambda: b"\n" in run.init_bytes and run.init_eof and run.log_eof, "all three stages end")
            self.assertRegex(run.init_bytes, parent.Bootstrap.PID_LINE)
            self.assertEqual(run.fatal(), [])
            self.assertEqual(run.texts("0")[-1], "<~ nsexec stage-0")
            run.until(lambda: not run.pidfds, "stage 0 is gone")
            parent.wait_until(lambda: not parent.own_children(), parent.LIMIT, "no child is left")
        finally:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)


class Credentials(Traced):
    """The table in docs/protocol.md#groups, row by row."""

    def groups(self, stage):
        return sorted(map(int, stage.status["Groups"].split()))

    def ids(self, stage):
        return set(stage.status["Uid"].split()), set(stage.status["Gid"].split())

    def test_rootful_without_setgroup_keeps_groups(self):
        self.trace(message(FIVE), user=parent.User(0, 0, [7, 8]))
        self.assertEqual(self.groups(self.stages[2]), [7, 8])
        self.assertEqual(self.ids(self.stages[2]), ({"0"}, {"0"}))

    def test_rootful_without_setgroup_in_a_user_namespace(self):
        self.trace(message(FLAG["user"], uidmap=RANGE, gidmap=RANGE), user=parent.User(0, 0, [7, 8]))
        self.assertEqual(self.groups(self.stages[2]), [7, 8])

    def test_rootful_with_setgroup_drops_groups(self):
        run = self.start("/bin/cat", "/proc/self/setgroups", user=parent.User(0, 0, [7, 8]))
        data = message(FLAG["user"], uidmap=RANGE, gidmap=RANGE, setgroup=True)
        run.like_init(data)
        self.assertHandedOver(run, out=b"allow\n")
        self.trace(data, user=parent.User(0, 0, [7, 8]))
        self.assertEqual(self.groups(self.stages[2]), [])
        self.assertEqual(self.ids(self.stages[2]), ({str(fixture.FIRST)}, {str(fixture.FIRST)}))

    def rootless(self, setgroup):
        user = fixture.ordinary_user([7, 8])
        if setgroup:
            uidmap = f"0 {user.uid} 1\n1 {fixture.FIRST} 100\n"
            gidmap = f"0 {user.gid} 1\n1 {fixture.FIRST} 100\n"
        else:
            uidmap, gidmap = f"0 {user.uid} 1\n", f"0 {user.gid} 1\n"
        return user, message(FIVE | FLAG["user"], uidmap=uidmap, gidmap=gidmap, setgroup=setgroup, rootless=True,
                             uidtool="/usr/bin/newuidmap", gidtool="/usr/bin/newgidmap")

    def test_rootless_without_setgroup_denies(self):
        user, data = self.rootless(False)
        run = self.start("/bin/cat", "/proc/self/setgroups", user=user)
        run.like_init(data)
        self.assertHandedOver(run, out=b"deny\n")
        self.trace(data, user=user)
        self.assertEqual(self.groups(self.stages[2]), [7, 8])
        self.assertEqual(self.ids(self.stages[2]), ({str(user.uid)}, {str(user.gid)}))

    def test_rootless_with_setgroup_keeps_groups(self):
        user, data = self.rootless(True)
        run = self.start("/bin/cat", "/proc/self/setgroups", user=user)
        run.like_init(data)
        self.assertHandedOver(run, out=b"allow\n")
        self.trace(data, user=user)
        self.assertEqual(self.groups(self.stages[2]), [7, 8])
        self.assertEqual(self.ids(self.stages[2]), ({str(user.uid)}, {str(user.gid)}))

    def test_dumpable_without_joins(self):
        """The owner of /proc/PID is root if the process is not dumpable."""
        user, data = self.rootless(False)
        self.trace(data, user=user)
        self.assertEqual([stage.owner for stage in self.stages], [user.uid] * 3)


if __name__ == "__main__":
    unittest.main()
