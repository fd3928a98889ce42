"""Inspect stages at their exit, while their names, descriptors and credentials still exist.

Runs as root with CAP_SYS_PTRACE, in the test process. It seizes stage 0 while stage 0 waits for its message,
follows every fork, and takes a snapshot of each process when it begins to exit (PTRACE_EVENT_EXIT). Otherwise
the processes run undisturbed. A set-user-id mapping tool keeps its privilege, since the tracer is root.
"""

import ctypes
import os
import signal

import parent

SEIZE, CONT, GETEVENTMSG, LISTEN = 0x4206, 7, 0x4201, 0x4208
O_FORK, O_VFORK, O_CLONE, O_EXIT = 2, 4, 8, 64
EVENT_FORK, EVENT_VFORK, EVENT_CLONE, EVENT_EXIT, EVENT_STOP = 1, 2, 3, 6, 128
WALL = 0x40000000

parent.libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
parent.libc.ptrace.restype = ctypes.c_long


class Snapshot:
    def __init__(self, pid):
        self.pid = pid
        self.status = parent.status_of(pid)
        self.name = self.status["Name"]
        self.namespaces = parent.namespaces_of(pid)
        self.descriptors = parent.descriptors_of(pid)
        self.session = parent.session_of(pid)
        self.owner = os.stat(f"/proc/{pid}/status").st_uid
        self.cwd = os.readlink(f"/proc/{pid}/cwd")
        with open(f"/proc/{pid}/oom_score_adj") as file:
            self.oom_score_adj = int(file.read())


class Tracer:
    def __init__(self, run):
        self.run = run
        self.traced = {run.pid}
        self.exits = {}
        parent.check(parent.libc.ptrace(SEIZE, run.pid, None, O_FORK | O_VFORK | O_CLONE | O_EXIT), "PTRACE_SEIZE")
        run.tracer = self

    def step(self):
        for pid in list(self.traced):
            self._one(pid)

    def _one(self, pid):
        while True:
            try:
                done, status = os.waitpid(pid, os.WNOHANG | WALL)
            except ChildProcessError:
                self.traced.discard(pid)
                return
            if done == 0:
                return
            if not os.WIFSTOPPED(status):
                self.traced.discard(pid)
                self.run.statuses[pid] = os.waitstatus_to_exitcode(status)
                fd = self.run.pidfds.pop(pid, None)
                if fd is not None:
                    os.close(fd)
                return
            self._stopped(pid, os.WSTOPSIG(status), status >> 16)

    def _stopped(self, pid, number, event):
        deliver = 0
        if event in (EVENT_FORK, EVENT_VFORK, EVENT_CLONE):
            child = ctypes.c_ulong()
            parent.libc.ptrace(GETEVENTMSG, pid, None, ctypes.addressof(child))
            self.traced.add(child.value)
        elif event == EVENT_EXIT:
            self.exits[pid] = Snapshot(pid)
        elif event == 0:
            deliver = number
        parent.libc.ptrace(CONT, pid, None, deliver)

    def named(self, name):
        found = [snapshot for snapshot in self.exits.values() if snapshot.name == name]
        if len(found) != 1:
            raise AssertionError(f"{len(found)} processes named {name}: {[s.name for s in self.exits.values()]}")
        return found[0]


O_SYSGOOD, SYSCALL, INTERRUPT = 1, 24, 0x4207


class Stepper:
    """Stop every stage at every entry to and return from a system call, and call `at(stage, count, pid)`
    there. Stages are numbered in the order of their creation; a mapping tool would be number 3. A process for
    which `at` returns true stays stopped there, until `go_on`."""

    def __init__(self, run, at):
        self.run, self.at = run, at
        # Skip the start-up of the program: begin at its wait for the message.
        parent.wait_until(lambda: self._waits(run.pid), parent.LIMIT, "stage 0 waits for the message")
        self.order, self.counts = [run.pid], {run.pid: 0}
        self.traced = {run.pid}
        parent.check(parent.libc.ptrace(SEIZE, run.pid, None, O_FORK | O_VFORK | O_CLONE | O_SYSGOOD), "PTRACE_SEIZE")
        parent.check(parent.libc.ptrace(INTERRUPT, run.pid, None, None), "PTRACE_INTERRUPT")
        run.tracer = self

    @staticmethod
    def _waits(pid):
        with open(f"/proc/{pid}/syscall") as file:  # read, or recvfrom, of the init pipe
            return file.read().split()[:2] in (["0", "0x3"], ["63", "0x3"], ["45", "0x3"])

    def step(self):
        busy = True
        while busy:
            busy = False
            self._find_orphans()
            for pid in list(self.traced):
                busy |= self._one(pid)

    def _find_orphans(self):
        """A child whose maker was killed in the clone, before its event arrived."""
        for pid in parent.own_children():
            if pid not in self.counts and parent.status_of(pid).get("TracerPid") == str(os.getpid()):
                self.traced.add(pid)
                self.order.append(pid)
                self.counts[pid] = 0

    def _one(self, pid):
        try:
            done, status = os.waitpid(pid, os.WNOHANG | WALL)
        except ChildProcessError:
            self.traced.discard(pid)
            return False
        if done == 0:
            return False
        if not os.WIFSTOPPED(status):
            self.traced.discard(pid)
            self.run.statuses[pid] = os.waitstatus_to_exitcode(status)
            fd = self.run.pidfds.pop(pid, None)
            if fd is not None:
                os.close(fd)
            return True
        number, event, deliver = os.WSTOPSIG(status), status >> 16, 0
        if event in (EVENT_FORK, EVENT_VFORK, EVENT_CLONE):
            child = ctypes.c_ulong()
            # ESRCH: the maker is being killed; its child is found as an orphan.
            told = parent.libc.ptrace(GETEVENTMSG, pid, None, ctypes.addressof(child)) == 0
            if told and child.value not in self.counts:
                self.traced.add(child.value)
                self.order.append(child.value)
                self.counts[child.value] = 0
        elif number == signal.SIGTRAP | 0x80:
            self.counts[pid] += 1
            if self.at(self.order.index(pid), self.counts[pid], pid):
                return True
        elif event == 0:
            deliver = number
        parent.libc.ptrace(SYSCALL, pid, None, deliver)
        return True

    def go_on(self, pid):
        parent.check(parent.libc.ptrace(SYSCALL, pid, None, 0), "PTRACE_SYSCALL")
