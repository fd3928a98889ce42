"""The programs that are measured: nsexec in its three forms, its peers, and the floors.

Each property builds or installs its program when a group first asks for it, below target/bench, and returns
its path. A peer that cannot be had raises Missing, and is named at the end of the run.
"""

import os
import re
import shutil
import subprocess
import time
import tomllib
from functools import cached_property
from pathlib import Path

import packages
import samecode

ROOT = Path(__file__).resolve().parents[1]
HERE = ROOT / "benches"
TARGET = ROOT / "target"
BUILT = TARGET / "bench"
CFLAGS = ("-O2", "-Wall", "-Wextra")
KINDS = {"dynamic": (), "static": ("-static",)}


class Missing(Exception):
    """A peer that is not on this machine. The text is the reason."""


# The seconds of all builds of this run.
spent = 0.0


def build(*argv, **environment):
    """Runs a command that builds something of this repository. It must succeed. Returns its output."""
    global spent
    began = time.monotonic()
    variables = {**os.environ, "CARGO_TARGET_DIR": str(TARGET), "CARGO_TERM_COLOR": "never", **environment}
    text = packages.output(*map(str, argv), cwd=ROOT, env=variables)
    spent += time.monotonic() - began
    return text


def first_line(*argv):
    return packages.output(*map(str, argv)).splitlines()[0]


class Programs:
    """`folder` is a directory of this run that every user may enter; it holds the command of all launches."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.bin = BUILT / "bin"
        self.bin.mkdir(parents=True, exist_ok=True)
        self.missing, self.versions = {}, {}

    def compile(self, name, *arguments):
        packages.install("gcc", "libc6-dev")
        self.versions["gcc"] = first_line("gcc", "--version")
        build("gcc", *CFLAGS, "-o", self.bin / name, *arguments)
        return self.bin / name

    def build_all(self, short):
        """Builds what cargo builds for such a run, except what the suites build too."""
        for name in ("nsexec", "library", "recorded", "crates", *(() if short else ("nsexec_static", "whole_functions"))):
            self.has(name)

    # -- the tools of the benchmark ------------------------------------------------------------------------

    @cached_property
    def driver(self):
        return self.compile("driver", HERE / "driver.c")

    @cached_property
    def floor(self):
        return self.compile("floor", "-static", "-pthread", HERE / "floor.c")

    @cached_property
    def true(self):
        """The command that is launched: a static program that returns 0."""
        return shutil.copy(self.compile("true", "-static", HERE / "true.c"), self.folder / "true")

    # -- nsexec --------------------------------------------------------------------------------------------

    @cached_property
    def nsexec(self):
        """The program, stripped as a package has it."""
        build("cargo", "build", "-q", "--locked", "--release", "-p", "nsexec-cli")
        packages.install("binutils")
        build("strip", "-o", self.bin / "nsexec", TARGET / "release/nsexec")
        self.versions["rustc"] = first_line("rustc", "--version")
        return self.bin / "nsexec"

    @cached_property
    def nsexec_static(self):
        build("crates/nsexec-cli/build-static", self.bin / "static")
        return self.bin / "static/nsexec"

    def rust(self, folder, *arguments):
        """Builds a package of this directory. Returns the folder of its programs."""
        manifest = HERE / folder / "Cargo.toml"
        words = ["cargo", "build", "-q", "--locked", "--release", "--manifest-path", manifest, *arguments]
        build(*words, CARGO_TARGET_DIR=str(BUILT / "cargo"))
        self.versions["rustc"] = first_line("rustc", "--version")
        return BUILT / "cargo/release"

    @cached_property
    def library(self):
        return self.rust("library", "--bin", "library") / "library"

    @cached_property
    def recorded(self):
        return self.rust("library", "--bin", "recorded", "--features", "record") / "recorded"

    @cached_property
    def whole_functions(self):
        """The programs `library` and `recorded`, without optimisation across crates: see samecode.py."""
        words = ["cargo", "build", "-q", "--locked", "--release", "--features", "record"]
        words += ["--bins", "--manifest-path", HERE / "library/Cargo.toml"]
        build(*words, CARGO_TARGET_DIR=str(BUILT / "code"), **samecode.FLAGS)
        return [BUILT / "code/release" / name for name in ("library", "recorded")]

    @cached_property
    def archive(self):
        """The folder with libnsexec.a."""
        build(ROOT / "crates/nsexec-capi/build", BUILT / "archive")
        return BUILT / "archive"

    @cached_property
    def starters(self):
        """The program ready.c with each bootstrap: a dictionary from (bootstrap, kind of link) to the path."""
        bootstraps = {
            "nsexec": ["-DSTART=nsexec", HERE / "ready.c", self.archive / "libnsexec.a"],
            "floor": ["-DSTART=raw_sequence", HERE / "ready.c", HERE / "raw_sequence.c"],
        }
        try:
            objects = self.runc_objects
            bootstraps["runc's C"] = ["-DSTART=nsexec", HERE / "ready.c", *objects]
        except Missing as reason:
            self.missing["runc's C"] = str(reason)
        return {
            (name, kind): self.compile(f"ready-{kind}-{name[:4]}", *flags, *arguments)
            for name, arguments in bootstraps.items()
            for kind, flags in KINDS.items()
        }

    @cached_property
    def sweep(self):
        """The test program of the fault sweep, as cargo test builds it."""
        words = ["cargo", "test", "-q", "--locked", "--no-run", "-p", "nsexec-audit", "--test", "sweep"]
        text = build(*words, "--message-format", "json-render-diagnostics")
        return re.findall(r'"executable":"([^"]*/sweep-[^"]*)"', text)[-1]

    # -- peers ---------------------------------------------------------------------------------------------

    @cached_property
    def runc_objects(self):
        """runc's own C, compiled as cgo does, from sid's package of its sources."""
        try:
            runc = packages.sid_runc()
        except (packages.Unavailable, RuntimeError) as error:
            raise Missing(str(error).splitlines()[-1]) from error
        self.versions["runc's C"] = f"{packages.RUNC_SOURCE} {runc.version}"
        packages.install("gcc", "libc6-dev")
        folder = runc.gopath / "src/github.com/opencontainers/runc/libcontainer/nsenter"
        objects = []
        for source in sorted(folder.glob("*.c")):
            objects.append(self.bin / f"runc-{source.stem}.o")
            build("gcc", "-g", "-O2", "-Wall", "-c", "-o", objects[-1], source)
        return objects

    def debian(self, command, package, version):
        """A program of a Debian package, which is installed if root can."""
        if shutil.which(command) is None:
            try:
                packages.install(package)
            except RuntimeError as error:
                raise Missing(f"package {package}: {str(error).splitlines()[-1]}") from error
        path = shutil.which(command)
        if path is None:
            raise Missing(f"package {package} has no {command}")
        self.versions[command] = version(path)
        return path

    @cached_property
    def unshare(self):
        return self.debian("unshare", "util-linux", lambda path: first_line(path, "--version"))

    @cached_property
    def nsenter(self):
        return self.debian("nsenter", "util-linux", lambda path: first_line(path, "--version"))

    @cached_property
    def bubblewrap(self):
        return self.debian("bwrap", "bubblewrap", lambda path: first_line(path, "--version"))

    @cached_property
    def crun(self):
        return self.debian("crun", "crun", lambda path: first_line(path, "--version"))

    @cached_property
    def runc(self):
        return self.debian("runc", "runc", lambda path: first_line(path, "--version"))

    @cached_property
    def crates(self):
        """The program with the crates unshare, nix and hakoniwa."""
        try:
            path = self.rust("peers") / "nsexec-bench-peers"
        except RuntimeError as error:
            raise Missing(f"the crates cannot be fetched or built: {str(error).splitlines()[-1]}") from error
        lock = tomllib.loads((HERE / "peers/Cargo.lock").read_text())
        newest = {package["name"]: package["version"] for package in lock["package"]}
        self.versions["crates"] = ", ".join(f"{name} {newest[name]}" for name in ("unshare", "nix", "hakoniwa"))
        return path

    def has(self, name):
        """Returns the path of a peer, or None, with the reason in `missing`."""
        try:
            return getattr(self, name)
        except Missing as reason:
            self.missing[name] = str(reason)
            return None


def is_static(program):
    return "INTERP" not in packages.output("readelf", "--program-headers", "--wide", program)


def facts():
    """Returns the machine and the commit, on which the figures depend."""
    cpu = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = int(re.search(r"^MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text()).group(1)) >> 20
    system = re.search(r'^PRETTY_NAME="(.*)"$', Path("/etc/os-release").read_text(), re.MULTILINE)
    name = os.uname()
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return {
        "nsexec": f"{version} {commit.stdout.strip()}".rstrip(),
        "machine": f"{cpu.group(1) if cpu else name.machine}, {os.cpu_count()} CPUs, {memory} GiB",
        "kernel": f"{name.sysname} {name.release} {name.machine}",
        "system": system.group(1) if system else "unknown",
        "load": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }
