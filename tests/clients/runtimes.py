"""The complete runc of a package, built twice: with its own C, and with our archive instead.

Who this is: part of `run`. It calls crates/nsexec-capi/build and go build, which write below target/clients and nowhere else.
"""

import json
from contextlib import suppress
from pathlib import Path

import build
from packages import RUNC_SOURCE, STABLE_GOPATH, WORK, Unavailable, install, locked, new_go, output, say
from packages import sid_runc, stable_go, version_of

RUNC = "github.com/opencontainers/runc"
# As Debian builds it. Only seccomp needs a library.
TAGS = "seccomp apparmor selinux"

# Replaces all files of runc's package nsenter.
NSENTER = """\
//go:build linux

package nsenter

// #cgo pkg-config: nsexec
// #include <nsexec.h>
// __attribute__((constructor)) static void start(void) {{ {symbol}(); }}
import "C"
"""


class Line:
    """One release line: the source of its runc, its compiler, and our symbol for it."""

    def __init__(self, name, version, go, gopath, symbol):
        self.name, self.version, self.symbol = name, version, symbol
        self.go = build.Go(go, gopath)
        self.folder = WORK / f"runc-{name}"

    def compile(self, side, archive=None):
        """Builds `side`/runc. The name must be runc, since podman and others check it."""
        target = self.folder / side / "runc"
        target.parent.mkdir(parents=True, exist_ok=True)
        # Go does not track the archive, which may have changed: without the target it links again.
        target.unlink(missing_ok=True)
        environment = self.go.environment(ours=False)
        options = ["-tags", TAGS, "-ldflags", f"-X main.version={self.version}"]
        if archive is not None:
            environment["PKG_CONFIG_PATH"] = str(archive)
            options += ["-overlay", self.overlay()]
        output(self.go.binary, "build", *options, "-o", target, RUNC, env=environment)
        return target

    def overlay(self):
        """The file for `go build -overlay`: an empty replacement removes a file."""
        nsenter = self.go.gopath / "src" / RUNC / "libcontainer/nsenter"
        replace = {str(path): "" for path in nsenter.iterdir() if path.suffix in (".c", ".h", ".go")}
        if str(nsenter / "nsexec.c") not in replace:
            raise RuntimeError(f"{nsenter} has no nsexec.c")
        ours = self.folder / "nsenter.go"
        ours.write_text(NSENTER.format(symbol=self.symbol))
        replace[str(nsenter / "nsenter.go")] = str(ours)
        file = self.folder / "overlay.json"
        file.write_text(json.dumps({"Replace": replace}, indent=1))
        return file

    def binaries(self, c_only=False):
        """The two binaries, by side; twice the same one if `c_only`."""
        with locked(f"runc-{self.name}"):
            c = self.compile("c")
            check_whose(c, ours=False)
            if c_only:
                return {"c": c, "ours": c}
            ours = self.compile("ours", build.archive())
            check_whose(ours, ours=True)
            return {"c": c, "ours": ours}


def check_whose(binary, ours):
    """Checks the bootstrap in a binary: both define the symbol nsexec, so that no program can hold both; only
    ours defines nsexec_seed."""
    symbols = {line.split()[-1] for line in output("nm", binary).splitlines()}
    if ("nsexec" in symbols, "nsexec_seed" in symbols) != (True, ours):
        raise RuntimeError(f"{binary}: is not what it was built to be")


def debian12():
    install(RUNC_SOURCE, "libseccomp-dev", "binutils")
    version = version_of(RUNC_SOURCE).split("+")[0]
    say(f"Debian 12: runc {version}")
    return Line("debian12", version, stable_go(), STABLE_GOPATH, "nsexec_v1_1")


def sid():
    """Its seccomp binding links Debian 12's libseccomp."""
    install("libseccomp-dev", "binutils")
    go = new_go()
    source = sid_runc()
    return Line("sid", source.version.split("+")[0], go, source.gopath, "nsexec")


LINES = {"debian12": debian12, "sid": sid}


def each_line(job, client, titles):
    """The lines with a selected case, and their binaries; a line that is unavailable is a skip."""
    titles = list(titles)
    for name, find in LINES.items():
        full = f"{client}-{name}"
        if not any(job.wants(full, title) for title in titles):
            continue
        try:
            line = find()
        except Unavailable as reason:
            job.judge.skip(full, reason)
            continue
        yield full, line, line.binaries(job.c_only)


def observed(case, view):
    """Runs one case with an engine, through its view of the engine: returns all that it showed."""
    try:
        case(view)
    except Exception:
        # The next case must start clean; the reported failure is the first one.
        with suppress(Exception):
            view.finish()
        raise
    view.finish()
    return view.seen


def for_all_users(stack, binaries):
    """Copies that an ordinary user may run, below a directory of this run; their paths differ in one word
    only."""
    folder = stack.folder()
    copies = {}
    for side, binary in binaries.items():
        copies[side] = folder / side / "runc"
        copies[side].parent.mkdir()
        copies[side].write_bytes(Path(binary).read_bytes())
        copies[side].chmod(0o755)
    return copies
