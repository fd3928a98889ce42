

# Runs after the functions of tests/kernel/reach.py. For each line on standard input it tries every act against
# each process that has come since the start. Prints one line "NAME: ACT" for each act that the kernel allowed,
# "NAME: seen" for each process, and "end".

# The process has to stay stopped.
del TRIES["SIGCONT"]


def opened(name):
    return lambda pid: os.close(os.open(f"/proc/{pid}/{name}", os.O_RDONLY))


def typed(pid):
    import fcntl
    import termios

    fd = os.open(f"/proc/{pid}/fd/0", os.O_RDWR)
    fcntl.ioctl(fd, termios.TIOCSTI, b"x")


def traced(pid):
    ptrace(pid)
    # A zombie would wait for its tracer.
    call(arch(101, 117), 0x4207, pid, 0, 0)  # PTRACE_INTERRUPT
    os.waitpid(pid, 0x40000000)  # __WALL
    call(arch(101, 117), 17, pid, 0, 0)  # PTRACE_DETACH


TRIES["ptrace"] = traced
for name in ("exe", "root", "cwd", "mem", "maps", "environ", "fd/0", "fd/2", "ns/mnt", "ns/net", "ns/user"):
    TRIES[f"open {name}"] = opened(name)
TRIES["TIOCSTI"] = typed


def pids():
    return {int(name) for name in os.listdir("/proc") if name.isdigit()}


def stage(pid):
    """Returns the name of a stage. The command is the container's own."""
    try:
        name = open(f"/proc/{pid}/comm").read().strip()
    except OSError:
        return None
    return name if name.startswith(("runc:[", "nsexec")) else None


def acts(pid):
    try:
        yield from files(pid)
    except OSError:
        return
    for what, attempt in TRIES.items():
        try:
            attempt(pid)
        except OSError:
            continue
        yield what


def is_still(pid, name):
    """Returns whether the process still has the name of a stage. One that runs may be in the middle of an exec, with the
    rights of the command already and the name of the stage for some microseconds. A stage that is stopped keeps it."""
    time.sleep(0.01)
    return stage(pid) == name


def serve():
    confirmed = set()
    if len(sys.argv) > 1:
        keep(int(sys.argv[1], 16))
    known = pids()
    print("on", flush=True)
    for _ in sys.stdin:
        for pid in sorted(pids() - known):
            name = stage(pid)
            if name is None:
                continue
            print(f"{name}: seen")
            for what in acts(pid):
                # Another process of the launch is stopped, and this one may have executed the command meanwhile.
                if stage(pid) is None:
                    break
                if (name, what) not in confirmed:
                    if not is_still(pid, name):
                        break
                    confirmed.add((name, what))
                print(f"{name}: {what}")
        print("end", flush=True)


serve()
