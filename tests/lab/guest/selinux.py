#!/usr/bin/env python3
"""selinux.py PROGRAM [NAME=RUNC...]: the label of the message queues of a new ipc namespace, in enforcing mode.

The kernel mounts mqueue when the ipc namespace is created. The owner of its root directory is the user of that
moment. The container's root may change the label only as that owner (runc#4466): if the namespace is created before
the user namespace is mapped, or by a process that has joined a user namespace and is not its root yet, the change is
refused with EPERM.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

NEWNS, NEWIPC, NEWUSER = 0x20000, 0x8000000, 0x10000000
MAP = "0 100000 65536"
FIRST, SECOND = "u:object_r:mqueue_t", "u:object_r:container_t"
libc = ctypes.CDLL(None, use_errno=True)
failed = False

# Mounts the message queues, and changes their label. The last field of the output is the result.
CHANGE = f"""
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b"mqueue", b"/dev/mqueue", b"mqueue", 0, None) != 0:
    raise SystemExit("mount: " + os.strerror(ctypes.get_errno()))
def label(): return os.getxattr("/dev/mqueue", "security.selinux").decode().rstrip(chr(0))
before, owner = label(), os.stat("/dev/mqueue").st_uid
try:
    os.setxattr("/dev/mqueue", "security.selinux", b"{SECOND}")
    print(owner, before, label())
except OSError as error:
    print(owner, before, error.strerror)
"""


def check(name, found, wanted):
    global failed
    if found == wanted:
        print(f"ok {name}")
    else:
        print(f"FAILED {name}: wanted {wanted!r}, found {found!r}".replace("\n", " | "))
        failed = True


def output(*words):
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    return (done.stdout + done.stderr).strip()


def must(result):
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def write_maps(pid):
    for name in ("uid_map", "gid_map"):
        Path(f"/proc/{pid}/{name}").write_text(MAP)


def with_parent(before, after):
    """The output of CHANGE in a process that calls `before`, has its id maps written if it is in a user namespace
    without maps, and calls `after`."""
    ready, go = os.pipe(), os.pipe()
    out = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(out[1], 1)
            os.dup2(out[1], 2)
            before()
            os.write(ready[1], b"x")
            os.read(go[0], 1)
            after()
            os.execv(sys.executable, [sys.executable, "-c", CHANGE])
        except BaseException as error:
            print(error, flush=True)
        os._exit(1)
    os.close(out[1])
    os.read(ready[0], 1)
    if not Path(f"/proc/{pid}/uid_map").read_text():
        write_maps(pid)
    os.write(go[1], b"x")
    text = os.fdopen(out[0]).read().strip()
    os.waitpid(pid, 0)
    return text


def become_root():
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def holder():
    """A process in a new user namespace with maps."""
    ready = os.pipe()
    pid = os.fork()
    if pid == 0:
        must(libc.unshare(NEWUSER))
        os.write(ready[1], b"x")
        signal.pause()
    os.read(ready[0], 1)
    write_maps(pid)
    return pid


def join(pid):
    with open(f"/proc/{pid}/ns/user") as file:
        must(libc.setns(file.fileno(), NEWUSER))


def orders(pid):
    """The orders of the calls without nsexec: two wrong ones, and the right ones."""
    refused, changed = f"65534 {FIRST} Operation not permitted", f"0 {FIRST} {SECOND}"
    check("one_unshare_before_the_maps_is_refused", with_parent(lambda: must(libc.unshare(NEWUSER | NEWIPC | NEWNS)), become_root), refused)

    def maps_first():
        become_root()
        must(libc.unshare(NEWIPC | NEWNS))

    check("ipc_namespace_after_the_maps", with_parent(lambda: must(libc.unshare(NEWUSER)), maps_first), changed)

    def joined(root_first):
        join(pid)
        if root_first:
            become_root()
        must(libc.unshare(NEWIPC | NEWNS))
        become_root()

    check("joined_user_namespace_before_its_root_is_refused", with_parent(lambda: joined(False), lambda: None), refused)
    check("joined_user_namespace_as_its_root", with_parent(lambda: joined(True), lambda: None), changed)


def program(nsexec, pid):
    changed = f"0 {FIRST} {SECOND}"
    command = ["--", sys.executable, "-c", CHANGE]
    maps = ["--map-users", "0:100000:65536", "--map-groups", "0:100000:65536"]
    for how in ([], ["-f"], ["-p"]):
        name = "_".join(["run", *how]).replace("-", "")
        check(f"{name}_new_user_namespace", output(nsexec, "run", *how, "-U", *maps, "-i", "-m", *command), changed)
        check(f"{name}_joined_user_namespace", output(nsexec, "run", *how, "--join", f"user=/proc/{pid}/ns/user", "-i", "-m", *command), changed)
    check("enter", output(nsexec, "enter", "-t", str(pid), "-U", "--", "id", "-u"), "0")


def bundle(folder, user_path):
    """A bundle whose container has the label SECOND for its files."""
    root = folder / "rootfs"
    for name in ("usr", "proc", "dev"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("bin", "lib", "lib64"):
        if not (root / name).is_symlink():
            (root / name).symlink_to(f"usr/{name}")
    mapping = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    user = {"type": "user", **({"path": user_path} if user_path else {})}
    config = {
        "ociVersion": "1.0.2",
        "process": {"user": {"uid": 0, "gid": 0}, "cwd": "/", "env": ["PATH=/usr/bin"], "args": ["/usr/bin/cat", "/proc/self/mounts"]},
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
        ],
        "linux": {
            "namespaces": [user, *({"type": name} for name in ("mount", "ipc", "pid", "network", "uts"))],
            "uidMappings": mapping, "gidMappings": mapping, "mountLabel": SECOND,
        },
    }
    (folder / "config.json").write_text(json.dumps(config))


def with_runc(name, runc, pid):
    """The real runc changes the label of its container's message queues itself."""
    for kind, path in (("new", None), ("joined", f"/proc/{pid}/ns/user")):
        folder = Path(f"/run/lab-{name}-{kind}")
        folder.mkdir()
        bundle(folder, path)
        os.chmod(folder, 0o755)
        text = output(runc, "--root", "/run/lab-runc", "run", "--bundle", str(folder), f"{name}-{kind}")
        found = "changed" if "/dev/mqueue" in text and "mqueue rw" in text else text
        # As of runc 1.2.1, and in every line with nsexec.
        wanted = "changed"
        if (name, kind) == ("debian12-c", "joined"):
            found, wanted = "refused" if "setxattr" in found and "not permitted" in found else found, "refused"
        check(f"runc_{name}_{kind}_user_namespace", found, wanted)


def main():
    nsexec, *runcs = sys.argv[1:]
    Path("/sys/fs/selinux/load").write_bytes(Path("/lab/policy").read_bytes())
    check("enforcing", Path("/sys/fs/selinux/enforce").read_text(), "1")
    check("label_of_this_process", Path("/proc/self/attr/current").read_text().rstrip("\0"), "u:r:base_t")
    pid = holder()
    try:
        orders(pid)
        program(nsexec, pid)
        for one in runcs:
            with_runc(*one.split("=", 1), pid)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return 1 if failed else 0


sys.exit(main())
