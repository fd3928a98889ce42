"""Boots a kernel in qemu, without KVM, and returns the output of its jobs."""

import re
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import image
import policy
from packages import install

@dataclass(frozen=True)
class Qemu:
    """How qemu emulates an architecture: its program, Debian's packages of it, the machine, the console as the kernel
    names it, and the second serial line, for the output of the jobs."""

    program: str
    packages: list
    machine: list
    console: str
    console_device: list
    results: str
    results_device: list


SERIAL = ["-serial", "chardev:console"]

QEMU = {
    "amd64": Qemu(
        "qemu-system-x86_64", ["qemu-system-x86", "seabios"], ["-M", "q35", "-cpu", "max"],
        "ttyS0", SERIAL, "ttyS1", ["-serial", "chardev:results"],
    ),
    # Arm's machine has one serial line only, so it gets a PCI card.
    "arm64": Qemu(
        "qemu-system-aarch64", ["qemu-system-arm"], ["-M", "virt", "-cpu", "cortex-a72"],
        "ttyAMA0", SERIAL, "ttyS0", ["-device", "pci-serial,chardev=results"],
    ),
    "s390x": Qemu(
        "qemu-system-s390x", ["qemu-system-misc"], ["-M", "s390-ccw-virtio"],
        "ttyS0", ["-device", "sclplmconsole,chardev=console"], "ttysclp0", ["-device", "sclpconsole,chardev=results"],
    ),
}


@dataclass(frozen=True)
class Job:
    """A command of the guest. `limit` is in seconds."""

    name: str
    command: str
    limit: int


@dataclass
class Done:
    """The result of a job: its output, its exit status, and its duration in seconds. The status is None if the job
    has not ended."""

    lines: list = field(default_factory=list)
    status: int | None = None
    seconds: int = 0


@dataclass
class Boot:
    """The result of a boot. `problem` is empty if the guest has reached its end."""

    jobs: dict
    release: str
    seconds: float
    problem: str


def boot(kernel, found, root, jobs, folder):
    """Boots the kernel's image `found` with the archive `root`, and runs the jobs. `folder` receives the console and
    the output of the jobs. The limit of the boot is that of its jobs and two minutes."""
    qemu = QEMU[kernel.architecture]
    install(*qemu.packages)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    initrd, results = folder / "initrd", folder / "results"
    shutil.copy(root, initrd)
    files = {"lab/jobs": "".join(f"{job.name}\t{job.limit}\t{job.command}\n" for job in jobs)}
    if "selinux=1" in kernel.arguments:
        files["lab/policy"] = policy.compiled()
    files |= {f"lab/modules/{number}": data for number, data in enumerate(found.modules())}
    image.append(initrd, files)
    # The kernel hands on a parameter that it does not know, as a variable of the guest's process 1.
    append = ["quiet", "panic=-1", "rdinit=/init", f"console={qemu.console}", f"lab_results={qemu.results}", *kernel.arguments]
    # The machine ends with this script.
    words = [
        "setpriv", "--pdeathsig", "KILL", "--", qemu.program, *qemu.machine, "-smp", "2", "-m", "3072", "-nodefaults", "-display", "none", "-no-reboot",
        "-chardev", f"file,id=console,path={folder / 'console'}", *qemu.console_device,
        "-chardev", f"file,id=results,path={results}", *qemu.results_device,
        "-kernel", found.file, "-initrd", initrd, "-append", " ".join(append),
    ]
    start = time.monotonic()
    limit = sum(job.limit for job in jobs) + 120
    problem = ""
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit)
        problem = done.stderr.strip() if done.returncode != 0 else ""
    except subprocess.TimeoutExpired:
        problem = f"the machine did not end within {limit} s"
    finally:
        initrd.unlink()
    text = results.read_text(errors="replace") if results.exists() else ""
    jobs_done, release, complete = read(text)
    if not complete and not problem:
        problem = "the machine ended before its jobs"
    return Boot(jobs_done, release, time.monotonic() - start, problem)


def read(text):
    """Returns the jobs of an output, the kernel's release, and whether the guest has reached its end."""
    jobs, release, complete, current = {}, "", False, None
    for line in text.splitlines():
        if line.startswith("@kernel "):
            release = line.split()[1]
        elif line.startswith("@begin "):
            current = jobs[line.split()[1]] = Done()
        elif re.match(r"@end \S+ \d+ \d+$", line) and current is not None:
            current.status, current.seconds = map(int, line.split()[2:])
            current = None
        elif line == "@off":
            complete = True
        elif current is not None:
            current.lines.append(line)
    return jobs, release, complete


def console_tail(folder, count=25):
    """The last lines of the console, for a report."""
    console = Path(folder) / "console"
    return console.read_text(errors="replace").splitlines()[-count:] if console.exists() else []
