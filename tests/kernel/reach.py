"""Runs as a container's root: finds stage 2 of our launcher in its own /proc, and tries every act of one
process against another. Prints one line for each act that the kernel allowed, and "end".

`reach.py CAPS`: with CAPS (hexadecimal) it first drops all other capabilities, from the bounding set too.
"""

import ctypes
import os
import resource
import signal
import struct
import sys
import time

libc = ctypes.CDLL(None, use_errno=True)
ptr = ctypes.c_void_p


def call(number, *args):
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def arch(x86_64, aarch64):
    return aarch64 if os.uname().machine == "aarch64" else x86_64


def keep(caps):
    for bit in range(64):
        if not caps >> bit & 1:
            libc.prctl(24, bit, 0, 0, 0)
    low, high = caps & 0xFFFFFFFF, caps >> 32
    header = struct.pack("II", 0x20080522, 0)
    call(arch(126, 91), ctypes.create_string_buffer(header), ctypes.create_string_buffer(struct.pack("6I", low, low, 0, high, high, 0)))


def find():
    """Waits for stage 2 and returns its pid."""
    while True:
        for name in os.listdir("/proc"):
            try:
                # Without stage 0 it has the name of its program.
                if name.isdigit() and open(f"/proc/{name}/comm").read() in ("runc:[2:INIT]\n", "nsexec\n"):
                    return int(name)
            except OSError:
                pass
        time.sleep(0.01)


def ptrace(pid):
    call(arch(101, 117), 0x4206, pid, 0, 0)  # PTRACE_SEIZE
    # The kernel detaches when this process ends.


def vm_read(pid):
    data = ctypes.create_string_buffer(8)
    local = ctypes.create_string_buffer(struct.pack("PN", ctypes.addressof(data), 8))
    # An unmapped address: the kernel returns EFAULT after it has checked the right to read.
    remote = ctypes.create_string_buffer(struct.pack("PN", 8, 8))
    try:
        call(arch(310, 270), pid, local, 1, remote, 1, 0)
    except OSError as error:
        if error.errno != 14:
            raise


def pidfd(pid):
    return call(434, pid, 0)


def limit(pid, values):
    resource.prlimit(pid, resource.RLIMIT_CORE, *values)


def batch(pid):
    # struct sched_param of SCHED_BATCH.
    os.sched_setscheduler(pid, os.SCHED_BATCH, os.sched_param(0))


def signals(number):
    return lambda pid: os.kill(pid, number)


TRIES = {
    "kill": signals(0),
    "SIGSTOP": signals(signal.SIGSTOP),
    "SIGCONT": signals(signal.SIGCONT),
    "pidfd_send_signal": lambda pid: call(424, pidfd(pid), 0, 0, 0),
    "prlimit (read)": lambda pid: limit(pid, ()),
    "prlimit (write)": lambda pid: limit(pid, ((0, 0),)),
    "setpriority": lambda pid: os.setpriority(os.PRIO_PROCESS, pid, 19),
    "ioprio_set": lambda pid: call(arch(251, 30), 1, pid, 2 << 13 | 7),
    "sched_setaffinity": lambda pid: os.sched_setaffinity(pid, os.sched_getaffinity(0)),
    "sched_setscheduler": batch,
    "setpgid": lambda pid: os.setpgid(pid, pid),
    "ptrace": ptrace,
    "process_vm_readv": vm_read,
    "pidfd_getfd": lambda pid: call(438, pidfd(pid), 0, 0),
    "kcmp": lambda pid: call(arch(312, 272), pid, os.getpid(), 1, 0, 0),
    "move_pages": lambda pid: call(arch(279, 239), pid, 0, 0, 0, 0, 0),
    "get_robust_list": lambda pid: call(arch(274, 100), pid, ctypes.byref(ptr()), ctypes.byref(ctypes.c_size_t())),
    "setns (pidfd)": lambda pid: call(arch(308, 268), pidfd(pid), 0x40000000),
}

# The text to write to each file; other files get a number.
WRITES = {
    "oom_score_adj": b"1000",
    "oom_adj": b"15",
    "comm": b"other",
    "coredump_filter": b"0x33",
    "autogroup": b"0",
    "clear_refs": b"1",
    "sched": b"0",
    "timerslack_ns": b"50000",
    "loginuid": b"0",
    "setgroups": b"deny",
    "uid_map": b"0 0 1\n",
    "gid_map": b"0 0 1\n",
    "projid_map": b"0 0 1\n",
    "timens_offsets": b"monotonic 1 0\n",
}


def files(pid):
    base = f"/proc/{pid}"
    for folder, names, entries in os.walk(base):
        # The threads have the same files, and the files of the network belong to its namespace.
        names[:] = [] if folder != base else [name for name in names if name not in ("task", "net")]
        try:
            list(os.scandir(folder))
        except OSError:
            continue
        if folder != base:
            yield f"list {folder[len(base) + 1:]}"
        for name in sorted(os.listdir(folder)):
            path = f"{folder}/{name}"
            shown = path[len(base) + 1 :]
            if os.path.islink(path):
                try:
                    os.readlink(path)
                    yield f"link {shown}"
                except OSError:
                    pass
                continue
            if os.path.isdir(path):
                continue
            try:
                with open(path, "rb", buffering=0) as file:
                    file.read(1)
                yield f"read {shown}"
            except OSError:
                pass
            try:
                with open(path, "wb", buffering=0) as file:
                    file.write(WRITES.get(name, b"0"))
                yield f"write {shown}"
            except OSError:
                pass


def main():
    if len(sys.argv) > 1:
        keep(int(sys.argv[1], 16))
    print("on", flush=True)
    pid = find()
    # By then stage 2 waits for the go byte.
    time.sleep(0.3)
    for what in files(pid):
        print(what)
    for what, attempt in TRIES.items():
        try:
            attempt(pid)
            print(what)
        except OSError:
            pass
    print("end", flush=True)
    time.sleep(100)


main()
