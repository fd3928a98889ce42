"""Runs as a container's root: looks for processes with one of the names in argv, in its own /proc, and tries to
read the memory, the environment, the descriptors and the root directory of each, again and again. Prints `looks N`
and one line for each kind of access that the kernel allowed, after SIGTERM.

A look counts only if the process still has its name afterwards: with the exec of the command it gets another one.
"""

import ctypes
import os
import platform
import signal
import struct
import sys

libc = ctypes.CDLL(None, use_errno=True)
ARM = platform.machine() == "aarch64"


def call(number, *args):
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result


def vm_read(pid):
    data = ctypes.create_string_buffer(8)
    local = ctypes.create_string_buffer(struct.pack("PN", ctypes.addressof(data), 8))
    remote = ctypes.create_string_buffer(struct.pack("PN", 8, 8))
    try:
        call(270 if ARM else 310, pid, local, 1, remote, 1, 0)
    except OSError as error:
        # EFAULT: the address is unmapped, and the kernel has checked the right to read before.
        if error.errno != 14:
            raise


def getfd(pid):
    pidfd = os.pidfd_open(pid)
    try:
        os.close(call(438, pidfd, 0, 0))
    finally:
        os.close(pidfd)


def opened(name):
    return lambda pid: os.close(os.open(f"/proc/{pid}/{name}", os.O_RDONLY))


TRIES = {
    "mem": lambda pid: os.close(os.open(f"/proc/{pid}/mem", os.O_RDWR)),
    "environ": lambda pid: open(f"/proc/{pid}/environ", "rb").read(1),
    "fd/0": opened("fd/0"),
    "exe": lambda pid: os.readlink(f"/proc/{pid}/exe"),
    "root": opened("root/"),
    "ns/mnt": opened("ns/mnt"),
    "process_vm_readv": vm_read,
    "pidfd_getfd": getfd,
}


def name_of(pid):
    try:
        with open(f"/proc/{pid}/comm") as file:
            return file.read().rstrip("\n")
    except OSError:
        return None


def main(names):
    looks, allowed, ended = 0, set(), []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
    # No process with a name of argv is left out, except those that were here before.
    before = {name for name in os.listdir("/proc") if name.isdigit()}
    print("on", flush=True)
    while not ended:
        for pid in os.listdir("/proc"):
            if not pid.isdigit() or pid in before or name_of(pid) not in names:
                continue
            for what, act in TRIES.items():
                try:
                    act(int(pid))
                except OSError:
                    looks += 1
                    continue
                if name_of(pid) in names:
                    looks += 1
                    allowed.add(what)
    print("looks", looks)
    for what in sorted(allowed):
        print("allowed", what)
    print("end", flush=True)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pause()


main(sys.argv[1:])
