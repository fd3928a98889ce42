"""The kernels of the lab: packages of other suites of Debian, unpacked below the cache and not installed, and kernels
that are built from Debian's package of the kernel's source.

The cache is the folder in the variable NSEXEC_LAB_CACHE, or target/lab. A kernel that it has is not fetched
again; `run --fetch` fetches the newest one.
"""

import lzma
import os
import re
import shutil
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

from packages import Suite, Unavailable, install, output


@dataclass(frozen=True)
class Kernel:
    """A kernel: its version as the lab names it, the suite of Debian that has it, and the architecture. `arguments`
    are of the kernel's command line, and `suites` those that run by default, in their order: `lockdown` is the last,
    because it changes the kernel. A kernel with `without` is built with the options of small.config, except these."""

    name: str
    suite: str
    architecture: str = "amd64"
    arguments: tuple = ()
    suites: tuple = ("first", "parity", "drawn", "lockdown")
    without: tuple = ()

    @property
    def version(self):
        """The version as two numbers."""
        return tuple(map(int, re.findall(r"\d+", self.name)[:2]))

    def is_built_here(self):
        return bool(self.without)

    def folder(self, cache):
        """The kernel's part of the cache. Kernels that differ in their command line only have one folder."""
        return cache / (self.name if self.is_built_here() else f"{self.suite}-{self.architecture}")


KERNELS = [
    Kernel("5.10", "bullseye"),
    Kernel("6.1", "bookworm"),
    Kernel("6.12", "trixie"),
    Kernel("7.2", "sid"),
    Kernel("6.1-arm64", "bookworm", "arm64", suites=("first", "parity")),
    Kernel("6.1-s390x", "bookworm", "s390x", suites=("first", "parity")),
    Kernel("6.12-selinux", "trixie", arguments=("security=selinux", "selinux=1", "enforcing=1"), suites=("selinux",)),
    Kernel("6.12-apparmor", "trixie", arguments=("apparmor=1", "security=apparmor"), suites=("apparmor",)),
    Kernel("6.1-small", "bookworm", suites=("small",), without=("POSIX_MQUEUE", "KEYS", "TIME_NS")),
    Kernel("6.1-no-userns", "bookworm", suites=("no-userns",), without=("USER_NS",)),
]

# The architecture of this machine: its guests have this machine's programs.
NATIVE = "amd64"

# Where Debian has no smaller kernel for virtual machines.
FLAVOUR = {"amd64": "cloud-amd64", "arm64": "cloud-arm64", "s390x": "s390x"}


# Parts of the kernel that a test mounts and that Debian does not build in.
MODULES = ("overlay",)


@dataclass(frozen=True)
class Image:
    """A kernel in the cache: the file to boot, and the release as `uname -r` prints it."""

    file: Path
    release: str
    root: Path
    module_names: tuple

    def modules(self):
        """The content of the modules that the tests need, which cannot load them by themselves."""
        for name in self.module_names:
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
    folder = kernel.folder(cache)
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
        get = build if kernel.is_built_here() else fetch
        try:
            get(kernel, folder)
        except Unavailable:
            # An archive that is being updated has lists and packages that do not agree.
            get(kernel, folder)
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
    return Image(found[0], release, folder / "root", () if kernel.is_built_here() else MODULES)


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


# What the kernel's own build needs.
BUILD_TOOLS = ["make", "gcc", "libc6-dev", "flex", "bison", "bc", "xz-utils"]


def build(kernel, folder):
    """Builds the kernel, from Debian's package of its source. Takes about five minutes of two processors."""
    install(*BUILD_TOOLS)
    suite = Suite(folder / "apt", kernel.suite, kernel.architecture)
    suite.update()
    name = "linux-source-" + ".".join(map(str, kernel.version))
    with tempfile.TemporaryDirectory(dir=folder) as work:
        work = Path(work)
        try:
            suite.unpack([name], work / "package")
        except RuntimeError as error:
            raise Unavailable(f"{name} cannot be fetched: {str(error).splitlines()[-1]}") from error
        output("tar", "-xf", work / f"package/usr/src/{name}.tar.xz", "-C", work)
        tree = work / name
        options = Path(__file__).with_name("small.config").read_text().splitlines()
        wanted = {line.split("=")[0]: line for line in options if line.startswith("CONFIG_")}
        wanted |= {f"CONFIG_{option}": f"CONFIG_{option}=n" for option in kernel.without}
        (tree / "wanted").write_text("".join(f"{line}\n" for line in wanted.values()))
        output("make", "-s", "tinyconfig", cwd=tree)
        output("scripts/kconfig/merge_config.sh", "-m", ".config", "wanted", cwd=tree)
        output("make", "-s", "olddefconfig", cwd=tree)
        chosen = set((tree / ".config").read_text().splitlines())
        # An option whose condition does not hold is dropped without an error.
        dropped = [line for line in wanted.values() if line.endswith("=y") and line not in chosen]
        kept = [option for option in kernel.without if f"CONFIG_{option}=y" in chosen]
        if dropped or kept:
            raise RuntimeError(f"{kernel.name}: the configuration lacks {dropped} and still has {kept}")
        output("make", "-s", f"-j{os.cpu_count()}", "bzImage", cwd=tree)
        release = output("make", "-s", "kernelrelease", cwd=tree).strip()
        (folder / "root/boot").mkdir(parents=True)
        shutil.copy(tree / "arch/x86/boot/bzImage", folder / f"root/boot/vmlinuz-{release}")


def version_in(name):
    """The numbers of a package's name, for the order of versions."""
    return tuple(map(int, re.findall(r"\d+", name)))


__all__ = ["KERNELS", "NATIVE", "Image", "Kernel", "Unavailable", "image"]
