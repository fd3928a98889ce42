"""Builds our archive, and Go programs with runc's own C or with ours, below target/clients.

Who this is: part of `run`; it calls crates/nsexec-capi/build and go build.
"""

import os
import shutil
import subprocess
from pathlib import Path

from packages import ROOT, WORK, install, locked, output, say

# The import path of bindings/go in a GOPATH.
BINDING = "github.com/nsexec/nsexec/bindings/go"


def archive():
    """Builds libnsexec.a, nsexec.h and nsexec.pc; cargo decides whether a rebuild is necessary."""
    folder = WORK / "capi"
    with locked("capi"):
        done = subprocess.run([ROOT / "crates/nsexec-capi/build", folder], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"nsexec-capi/build: status {done.returncode}\n{done.stdout[-1000:]}{done.stderr[-3000:]}")
    return folder


def our_gopath():
    """A GOPATH that contains only bindings/go."""
    gopath = WORK / "gopath"
    place = gopath / "src" / BINDING
    with locked("gopath"):
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(ROOT / "bindings/go", place)
    return gopath


class Go:
    """One compiler with one GOPATH."""

    def __init__(self, binary, gopath):
        self.binary, self.gopath = Path(binary), Path(gopath)

    def environment(self, ours):
        path = f"{self.binary.parent}:{os.environ.get('PATH', '/usr/bin:/bin')}"
        gopath = f"{our_gopath()}:{self.gopath}" if ours else str(self.gopath)
        environment = {
            **os.environ,
            "PATH": path,
            "GO111MODULE": "off",
            "GOPATH": gopath,
            "GOFLAGS": "",
            "GOTOOLCHAIN": "local",
            "GOCACHE": str(WORK / "go-cache"),
            "CGO_ENABLED": "1",
        }
        if ours:
            environment["PKG_CONFIG_PATH"] = str(archive())
        return environment

    def build(self, folder, target, *flags, ours=False):
        """Builds the package in `folder` as the program `target`. Go's own cache makes a rebuild fast."""
        target.parent.mkdir(parents=True, exist_ok=True)
        # Go does not track the archive, which may have changed: without the target it links again.
        target.unlink(missing_ok=True)
        output(self.binary, "build", *flags, "-o", target, ".", cwd=folder, env=self.environment(ours))
        return target


__all__ = ["BINDING", "Go", "archive", "install", "our_gopath", "say"]
