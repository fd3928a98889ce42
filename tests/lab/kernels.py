"""The kernels of the lab: packages of other suites of Debian, unpacked below the cache and not installed.

The cache is the folder in the variable NSEXEC_LAB_CACHE, or target/lab. A kernel that it has is not fetched
again; `run --fetch` fetches the newest one.
"""

import lzma
import re
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

from packages import Suite, Unavailable, output


@dataclass(frozen=True)
class Kernel:
    """A kernel: its version as the lab names it, the suite of Debian that has it, and the architecture. `arguments`
    are of the kernel's command line, and `suites` those that run by default, in their order: `lockdown` is the last,
    because it changes the kernel."""

    name: str
    suite: str
    architecture: str = "amd64"
    arguments: tuple = ()
    suites: tuple = ("first", "parity", "drawn", "lockdown")

    @property
    def version(self):
        """The version as two numbers."""
        return tuple(map(int, re.findall(r"\d+", self.name)[:2]))


KERNELS = [
    Kernel("5.10", "bullseye"),
    Kernel("6.1", "bookworm"),
    Kernel("6.12", "trixie"),
    Kernel("7.2", "sid"),
    Kernel("6.1-arm64", "bookworm", "arm64", suites=("first",)),
    Kernel("6.1-s390x", "bookworm", "s390x", suites=("first",)),
    Kernel("6.12-selinux", "trixie", arguments=("security=selinux", "selinux=1", "enforcing=1"), suites=("selinux",)),
    Kernel("6.12-apparmor", "trixie", arguments=("apparmor=1", "security=apparmor"), suites=("apparmor",)),
]

# The architecture of this machine: its guests have this machine's programs.
NATIVE = "amd64"

# Where Debian has no smaller kernel for virtual machines.
FLAVOUR = {"amd64": "cloud-amd64", "arm64": "cloud-arm64", "s390x": "s390x"}


# Parts of the kernel that a test mounts and that Debian does not build in.
MODULES = ["overlay"]


@dataclass(frozen=True)
class Image:
    """A kernel in the cache: the file to boot, and the release as `uname -r` prints it."""

    file: Path
    release: str
    root: Path

    def modules(self):
        """The content of the modules that the tests need, which cannot load them by themselves."""
        for name in MODULES:
            found = list(self.root.rglob(f"{name}.ko*"))
            if len(found) != 1:
                raise Unavailable(f"the packages of {self.release} have {len(found)} modules {name}")
            data = found[0].read_bytes()
            yield lzma.decompress(data) if found[0].suffix == ".xz" else data


# The lock of each folder of the cache, and the folders that this run has fetched.
guard, locks, fetched = threading.Lock(), {}, set()


def image(kernel, cache, fetch_again):
    """Returns the kernel's image, from the cache or from Debian's archive.

    Raises Unavailable if the archive cannot be read, has no such package, or has another version: sid's kernel
    changes several times a year, and the lab then names it wrongly."""
    folder = cache / f"{kernel.suite}-{kernel.architecture}"
    # Kernels that differ in their command line only have one folder.
    with guard:
        lock = locks.setdefault(folder, threading.Lock())
    with lock:
        return image_in(kernel, folder, fetch_again)


def image_in(kernel, folder, fetch_again):
    if fetch_again and folder not in fetched:
        shutil.rmtree(folder, ignore_errors=True)
    mark = folder / "complete"
    if not mark.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            fetch(kernel, folder)
        except Unavailable:
            # An archive that is being updated has lists and packages that do not agree.
            fetch(kernel, folder)
        mark.touch()
        fetched.add(folder)
    found = [file for file in (folder / "root").rglob("vmlinuz*") if file.is_file() and not file.is_symlink()]
    if len(found) != 1:
        raise Unavailable(f"the package of {kernel.name} has {len(found)} kernel images")
    # /boot/vmlinuz-RELEASE, and since 7.x /usr/lib/modules/RELEASE/vmlinuz.
    name = found[0].name.removeprefix("vmlinuz").removeprefix("-")
    release = name or found[0].parent.name
    if tuple(map(int, re.findall(r"\d+", release)[:2])) != kernel.version:
        raise Unavailable(f"Debian's {kernel.suite} has the kernel {release} now, and {kernel.name} no longer")
    return Image(found[0], release, folder / "root")


def fetch(kernel, folder):
    suite = Suite(folder / "apt", kernel.suite, kernel.architecture)
    suite.update()
    names = output("apt-cache", *suite.options, "search", "--names-only", f"^linux-(binary|image)-[0-9].*-{FLAVOUR[kernel.architecture]}$")
    packages = [line.split()[0] for line in names.splitlines() if "unsigned" not in line]
    # Since 7.x linux-image-* depends on linux-binary-*, which has the image.
    packages = [name for name in packages if name.startswith("linux-binary-")] or packages
    packages = [name for name in packages if version_in(name)[:2] == kernel.version] or packages
    if not packages:
        raise Unavailable(f"Debian's {kernel.suite} has no kernel for {kernel.architecture}")
    newest = max(packages, key=version_in)
    # Since 7.x the modules are in a package of their own.
    modules = newest.replace("linux-binary-", "linux-modules-")
    try:
        suite.unpack(sorted({newest, modules}), folder / "root")
    except RuntimeError as error:
        raise Unavailable(f"the kernel of {kernel.suite} cannot be fetched: {str(error).splitlines()[-1]}") from error


def version_in(name):
    """The numbers of a package's name, for the order of versions."""
    return tuple(map(int, re.findall(r"\d+", name)))


__all__ = ["KERNELS", "NATIVE", "Image", "Kernel", "Unavailable", "image"]
