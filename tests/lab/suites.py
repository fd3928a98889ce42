"""The suites that run in a guest, and the test programs that they need."""

import json
import subprocess
from pathlib import Path

import runtimes
from machine import Job
from packages import ROOT, Unavailable, say

# Name of the suite in `cargo test`, its package, and its limit in seconds, which is for a machine without KVM.
PROGRAMS = {
    "parity": ("nsexec-audit", 300),
    "drawn": ("nsexec-audit", 2400),
    "command": ("nsexec", 2400),
    "launch": ("nsexec-audit", 2400),
    "protocol": ("nsexec-cli", 2400),
}

# The programs in a guest of another architecture: nsexec and a test program.
FOREIGN = ["nsexec", "parity"]

# `command`, `launch`, `protocol` and the whole of `drawn` take minutes without KVM, and run if the caller names them
# (kernels.py has the suites that run by default).
NAMES = ["first", "selinux", "apparmor", "small", "no-userns", *PROGRAMS, "lockdown"]

# Those for the kernels that list them.
OF_A_KERNEL = ["selinux", "apparmor", "small", "no-userns"]

# Arguments of a suite. The other modes of hidepid repeat each rule.
WORDS = {"parity": "@hidepid-off"}

# Arguments of a suite that the caller has not named: 24 of the 300 drawn commands.
SHORT = {"drawn": "01"}

# Makes the stable libtest accept the flags for JSON, as in tests/run.py.
ENVIRONMENT = "RUSTC_BOOTSTRAP=1 CARGO_TERM_COLOR=never CI=1 RUST_BACKTRACE=0"
EVENTS = "--format json -Z unstable-options --show-output"


def build(wanted):
    """Builds the program and the test programs. Returns the path of each, by name."""
    tests = [name for name in wanted if name in PROGRAMS]
    if "small" in wanted and "command" not in tests:
        tests.append("command")
    commands = [["build", "-p", "nsexec-cli", "--bin", "nsexec"]]
    if tests:
        words = [word for name in tests for word in ("-p", PROGRAMS[name][0], "--test", name)]
        commands.append(["test", "--no-run", *words])
    messages = []
    for name, *words in commands:
        build = ["cargo", name, "--locked", "--message-format", "json-render-diagnostics", *words]
        done = subprocess.run(build, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise SystemExit("the program or the test programs cannot be built")
        messages += map(json.loads, done.stdout.splitlines())
    found = {"nsexec": ROOT / "target/debug/nsexec"}
    for message in messages:
        if message["reason"] == "compiler-artifact" and message["executable"] and message["target"]["name"] in tests:
            found[message["target"]["name"]] = Path(message["executable"])
    if not found["nsexec"].exists() or set(tests) - set(found):
        raise SystemExit(f"cargo has built {sorted(found)} only")
    return found | (runcs() if "selinux" in wanted else {})


def runcs():
    """The real runc of Debian 12 and of sid, each with its own C and with nsexec, by name."""
    found = {}
    for name, line in runtimes.LINES.items():
        try:
            found |= {f"{name}-{side}": path for side, path in line().binaries().items()}
        except Unavailable as reason:
            say(f"   without the runc of {name}: {reason}")
    return found


def files(programs):
    """The files that the guest has at the same path as this machine."""
    return list(programs.values())


def jobs(wanted, programs, whole):
    """The jobs of a boot. `whole`: the caller has named the suites, so each runs whole."""
    words = WORDS if whole else WORDS | SHORT
    found = []
    for name in wanted:
        if name == "first":
            found.append(Job(name, f"/lab/first {programs['nsexec']}", 300))
        elif name == "small":
            found.append(Job(name, f"/lab/small {programs['nsexec']} {programs['command']}", 300))
        elif name in ("apparmor", "lockdown", "no-userns"):
            found.append(Job(name, f"/lab/{name} {programs['nsexec']}", 300))
        elif name == "selinux":
            runcs = [f"{key}={path}" for key, path in programs.items() if key.startswith(tuple(runtimes.LINES))]
            found.append(Job(name, f"/lab/selinux.py {programs['nsexec']} {' '.join(runcs)}", 300))
        elif name in programs:
            package, limit = PROGRAMS[name]
            folder = ROOT if package == "nsexec" else ROOT / "crates" / package
            found.append(Job(name, f"mkdir -p {folder}; cd {folder}; {ENVIRONMENT} CARGO_MANIFEST_DIR={folder} exec {programs[name]} {EVENTS} {words.get(name, '')}", limit))
    return found
