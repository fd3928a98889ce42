"""The file system of a guest: an archive in cpio's format "newc", which the kernel unpacks before it starts
/init.

The guest has the programs of Debian packages that this machine has installed, with their libraries, the tests
and the test programs at the same paths as on this machine.
"""

import os
import re
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

from packages import ROOT, Suite, install, output

GUEST = Path(__file__).resolve().parent / "guest"

# What the tests call. Their dependencies are found by their libraries.
PACKAGES = [
    "coreutils", "dash", "bash", "grep", "sed", "mawk", "findutils", "util-linux", "util-linux-extra", "mount", "passwd", "login", "uidmap", "procps", "base-passwd",
    "libc-bin", "libc6", "libpam-modules", "libpam-runtime", "strace", "runc", "libcap2-bin", "hostname", "kmod",
    "python3-minimal", "python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib",
]

# What the script `first` calls.
FOREIGN = ["coreutils", "dash", "sed", "grep", "findutils", "util-linux", "mount", "hostname", "kmod", "strace", "mawk"]

# Not read by any test.
WITHOUT = re.compile(r"/usr/share/(doc|man|locale|info|lintian|bash-completion|zoneinfo)/|/usr/lib/[^/]*/gconv/|\.pyc$|/lib2to3/|/distutils/")

LINKS = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}

FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/shadow": "root:*:19000:0:99999:7:::\n",
    "etc/gshadow": "root:*::\n",
    "etc/subuid": "",
    "etc/subgid": "",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\n",
    "etc/os-release": 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="lab"\n',
}

FOLDERS = ["dev", "proc", "sys", "tmp", "run", "mnt", "root", "home", "var/tmp", "var/lib", "etc"]


class Archive:
    """A cpio archive. A later member replaces an earlier one of the same name."""

    def __init__(self, path, mode="wb"):
        self.file = open(path, mode)
        self.names = set()

    def close(self):
        self.member("TRAILER!!!", 0, b"")
        self.file.write(b"\0" * (-self.file.tell() % 512))
        self.file.close()

    def member(self, name, mode, data, device=(0, 0)):
        fields = [len(self.names) + 1, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name) + 1, 0]
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        for part in (head, data):
            self.file.write(part + b"\0" * (-len(part) % 4))
        self.names.add(name)

    def folder(self, name):
        """A folder, with those above it."""
        if name in self.names or name in ("", "."):
            return
        self.folder(os.path.dirname(name))
        mode = 0o1777 if name in ("tmp", "var/tmp") else 0o755
        self.member(name, stat.S_IFDIR | mode, b"")

    def text(self, name, data, mode=0o644):
        self.folder(os.path.dirname(name))
        self.member(name, stat.S_IFREG | mode, data.encode() if isinstance(data, str) else data)

    def link(self, name, target):
        self.folder(os.path.dirname(name))
        self.member(name, stat.S_IFLNK | 0o777, target.encode())

    def copy(self, path, name=None):
        """A file of this machine, with its mode, or a symbolic link."""
        name = name or place(path)
        if name in self.names:
            return
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode):
            self.link(name, os.readlink(path))
        elif stat.S_ISREG(found.st_mode):
            self.text(name, Path(path).read_bytes(), stat.S_IMODE(found.st_mode))
        elif stat.S_ISDIR(found.st_mode):
            self.folder(name)


def append(path, files):
    """Appends an archive with these files, name and text, to the archive at `path`."""
    archive = Archive(path, "ab")
    for name, data in files.items():
        archive.text(name, data)
    archive.close()


def place(path):
    """The name of a file in the archive: its folder without symbolic links, such as /bin."""
    path = Path(path)
    return str(path.parent.resolve() / path.name).lstrip("/")


def libraries(path):
    """The shared libraries of a program, as the dynamic linker finds them."""
    found = subprocess.run(["ldd", path], capture_output=True, text=True)
    return re.findall(r"(/\S+) \(0x", found.stdout) if found.returncode == 0 else []


def stripped(path):
    """A program without the information for debuggers, which is most of a test program."""
    with tempfile.NamedTemporaryFile() as file:
        output("strip", "--strip-debug", "-o", file.name, path)
        return Path(file.name).read_bytes()


def is_elf(path):
    if path.is_symlink() or not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(4) == b"\x7fELF"


def files_of_packages():
    install(*PACKAGES)
    names = output("dpkg", "-L", *PACKAGES).splitlines()
    # Lines such as "diverted by dash to: /bin/sh" are not paths.
    return sorted({Path(name) for name in names if name.startswith("/") and not WITHOUT.search(name) and os.path.lexists(name)})


def begin(path):
    """An archive with the folders, the accounts and the scripts of every guest."""
    archive = Archive(path)
    for name in FOLDERS:
        archive.folder(name)
    for name, data in FILES.items():
        archive.text(name, data, 0o640 if "shadow" in name else 0o644)
    # The console of process 1 before it has mounted /dev.
    archive.member("dev/console", stat.S_IFCHR | 0o600, b"", (5, 1))
    archive.text("init", (GUEST / "init").read_bytes(), 0o755)
    for file in GUEST.iterdir():
        if file.name != "init" and file.is_file():
            archive.text(f"lab/{file.name}", file.read_bytes(), 0o755)
    return archive


def foreign(path, folder, suite, architecture, programs):
    """Writes the guest of another architecture: packages of Debian's suite, unpacked below `folder`, and the programs
    in /usr/bin."""
    root = folder / "root"
    mark = folder / "complete"
    if not mark.exists():
        shutil.rmtree(folder, ignore_errors=True)
        found = Suite(folder / "apt", suite, architecture)
        found.update()
        simulated = output("apt-get", *found.options, "install", "-qq", "-s", "--no-install-recommends", *FOREIGN, cwd=found.folder)
        found.unpack(re.findall(r"^Inst (\S+)", simulated, re.MULTILINE), root)
        mark.touch()
    archive = begin(path)
    for name, target in LINKS.items():
        archive.link(name, target)
    for file in sorted(root.rglob("*")):
        name = str(file.relative_to(root))
        # The packages of this suite have files in /bin and /lib, which are links here.
        head, _, tail = name.partition("/")
        if not WITHOUT.search(f"/{name}") and name not in LINKS:
            archive.copy(file, f"{LINKS[head]}/{tail}" if head in LINKS and tail else name)
    for name, target in (("usr/bin/sh", "dash"), ("usr/bin/awk", "mawk")):
        archive.link(name, target)
    for program in programs:
        archive.text(f"usr/bin/{program.name}", program.read_bytes(), 0o755)
    archive.close()


# The compiler of AppArmor's profiles with the class of user namespaces: Debian 12's does not know it. It runs with the
# C library of its own suite.
PARSER = {
    "usr/sbin/apparmor_parser": "lab/parser/apparmor_parser",
    "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2": "lab/parser/ld.so",
    "usr/lib/x86_64-linux-gnu/libc.so.6": "lab/parser/libc.so.6",
}


def parser(archive, folder):
    """Adds the compiler of AppArmor's profiles, from a package that is unpacked below `folder`."""
    mark = folder / "complete"
    if not mark.exists():
        shutil.rmtree(folder, ignore_errors=True)
        found = Suite(folder / "apt", "trixie", "amd64")
        found.update()
        found.unpack(["apparmor", "libc6"], folder / "root")
        mark.touch()
    for source, name in PARSER.items():
        archive.text(name, (folder / "root" / source).read_bytes(), 0o755)
    # What profiles include.
    rules = folder / "root/etc/apparmor.d"
    for part in ("abi", "abstractions", "tunables"):
        for file in sorted((rules / part).rglob("*")):
            archive.copy(file, f"lab/parser/rules/{file.relative_to(rules)}")


def native(path, cache, programs):
    """Writes the guest of this machine's architecture with these programs."""
    archive = begin(path)
    parser(archive, cache / "apparmor")
    for name, target in LINKS.items():
        archive.link(name, target)
    files = files_of_packages()
    wanted = [*files, *programs]
    for file in files:
        archive.copy(file)
    for file in programs:
        archive.text(place(file), stripped(file), 0o755)
    elf = [file for file in wanted if is_elf(file)]
    for library in {library for file in elf for library in libraries(file)}:
        archive.copy(os.path.realpath(library))
        # The name by which the dynamic linker looks for it.
        if os.path.realpath(library) != place(library):
            archive.text(place(library), Path(library).read_bytes(), 0o755)
    for name, target in (("usr/bin/sh", "dash"), ("usr/bin/python3", "python3.11"), ("usr/bin/awk", "mawk")):
        archive.link(name, target)
    for file in sorted((ROOT / "tests").rglob("*")):
        if "__pycache__" not in file.parts:
            archive.copy(file)
    archive.close()
