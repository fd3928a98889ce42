"""A live process in its own namespaces, made with unshare and fork: a target for joins.

Runs as root, in the test process. The maker is a child of the test process. The holder, a child of the maker
and pid 1 of the new pid namespace, sleeps until the maker's pipe is closed. Neither runs the binary under
test.
"""

import os

import fixture
import parent
from parent import FLAG


class Container:
    """All kinds of namespaces, or the given ones. If there is a user namespace, it owns the others. `user`:
    the ordinary user that makes the namespaces, and is root inside."""

    def __init__(self, test, kinds=parent.KINDS, user=None):
        self.test, self.kinds, self.user = test, kinds, user

    def __enter__(self):
        ready_read, ready_write = os.pipe()
        go_read, go_write = os.pipe()
        self.keep_read, self.keep = os.pipe()
        self.maker = os.fork()
        if self.maker == 0:
            try:
                os.close(self.keep)
                os.close(ready_read)
                os.close(go_write)
                if self.user is not None:
                    os.setgroups([])
                    os.setresgid(self.user.gid, self.user.gid, self.user.gid)
                    os.setresuid(self.user.uid, self.user.uid, self.user.uid)
                    # The change of ids cleared the dumpable flag; after an exec it would be set.
                    parent.check(parent.libc.prctl(4, 1, 0, 0, 0), "PR_SET_DUMPABLE")
                if "user" in self.kinds:
                    parent.unshare(FLAG["user"])
                    os.write(ready_write, b"map\n")
                    assert os.read(go_read, 1) == b"."
                    os.setresgid(0, 0, 0)
                    os.setresuid(0, 0, 0)
                    parent.check(parent.libc.prctl(4, 1, 0, 0, 0), "PR_SET_DUMPABLE")
                parent.unshare(sum(FLAG[kind] for kind in self.kinds if kind != "user"))
                holder = os.fork()
                if holder == 0:
                    os.close(ready_write)
                    os.read(self.keep_read, 1)
                    os._exit(0)
                os.write(ready_write, b"%d\n" % holder)
                os.waitpid(holder, 0)
            finally:
                os._exit(0)
        parent.OUTSIDERS.add(self.maker)
        os.close(ready_write)
        os.close(go_read)
        lines = os.fdopen(ready_read, "rb", buffering=0)
        if "user" in self.kinds:
            assert lines.readline() == b"map\n"
            if self.user is None:
                for name in ("uid_map", "gid_map"):
                    self._write(name, f"0 {fixture.FIRST} 1000\n")
            else:
                self._write("setgroups", "deny")
                self._write("uid_map", f"0 {self.user.uid} 1\n")
                self._write("gid_map", f"0 {self.user.gid} 1\n")
            os.write(go_write, b".")
        self.pid = int(lines.readline())
        lines.close()
        os.close(go_write)
        self.namespaces = parent.namespaces_of(self.pid)
        return self

    def _write(self, name, text):
        with open(f"/proc/{self.maker}/{name}", "w") as file:
            file.write(text)

    def path(self, kind):
        return f"/proc/{self.pid}/ns/{kind}"

    def paths(self, kinds=None):
        return ",".join(f"{kind}:{self.path(kind)}" for kind in (kinds or self.kinds))

    def __exit__(self, *_):
        os.close(self.keep)
        os.close(self.keep_read)
        os.waitpid(self.maker, 0)
        parent.OUTSIDERS.discard(self.maker)
