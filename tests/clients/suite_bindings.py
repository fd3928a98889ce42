"""bindings/go: its own tests in each dialect, which are what runc expects of its C; the script `replace`; and the two
recipes of docs/go.md, with the real runc as a module with its folder vendor.

The tests are runc's expectations of its C. The recipes use the real runc as a module with its vendor
directory. Runs as part of `run`, as root: the tests make network namespaces, and start a container.
"""

import re
import subprocess

import recipes
import replaced
from build import WORK, archive
from packages import ROOT, install, stable_go

NAME = "bindings"
TAGS = ("", "nsexec_v1_1", "nsexec_v1_0", "nsexec_seed")


def suite(job, stack):
    own_tests(job)
    if any(job.wants(NAME, title) for title in replaced.CASES):
        install("binutils")
        replaced.suite(job, NAME, stack, stable_go(), go_environment())
    recipes.suite(job, NAME)


def own_tests(job):
    dialects = [tag for tag in TAGS if job.wants(NAME, tag)]
    if not dialects:
        return
    go = stable_go()
    environment = go_environment()
    for tag in dialects:
        # -count=1: Go's cache does not track the archive.
        command = [go, "test", "-count=1", "-v", "-vet=all", f"-tags={tag}", "."]
        done = subprocess.run(
            command, cwd=ROOT / "bindings/go", env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        results = re.findall(r"^--- (PASS|FAIL|SKIP): (\S+)", done.stdout, re.MULTILINE)
        for result, test in results:
            name = f"{NAME} {tag or 'nsexec'} {test}"
            job.judge.check(name, "" if result == "PASS" else done.stdout + done.stderr)
        if not results or done.returncode != 0 and not any(result == "FAIL" for result, _ in results):
            job.judge.fail(f"{NAME} {tag or 'nsexec'}", done.stdout + done.stderr)
    if "" in dialects:
        misuse(job, go, environment)


def go_environment():
    return {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(WORK),
        "GOCACHE": str(WORK / "go-cache"),
        "GOPROXY": "off",
        "PKG_CONFIG_PATH": str(archive()),
    }


def misuse(job, go, environment):
    """If the constructor would be missing or defined twice, the build fails."""
    attempts = {
        "two dialects": ({}, "-tags=nsexec_v1_1 nsexec_v1_0", "dialect redeclared"),
        "without cgo": ({"CGO_ENABLED": "0"}, "-tags=", "this_package_needs_linux_and_cgo"),
        "not Linux": ({"GOOS": "freebsd", "CGO_ENABLED": "0"}, "-tags=", "this_package_needs_linux_and_cgo"),
    }
    for name, (more, tags, words) in attempts.items():
        done = subprocess.run(
            [go, "build", tags, "."], cwd=ROOT / "bindings/go", env={**environment, **more}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True,
        )
        text = done.stdout + done.stderr
        refused = done.returncode != 0 and words in text
        job.judge.check(f"{NAME}: {name} is not built", "" if refused else f"status {done.returncode}\n{text}")
