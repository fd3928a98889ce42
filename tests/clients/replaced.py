"""bindings/go/replace in small trees: it recognises each line of runc, and refuses everything else without a
change.

Runs as part of `run`. A tree has what the script inspects, and compiles: constants of libcontainer, a C file,
and a program that imports both packages. Lines that no Debian package has are tested only here.
"""

import re
import shutil
import subprocess

import recipes
from packages import ROOT

REPLACE = ROOT / "bindings/go/replace"
RUNC = "github.com/opencontainers/runc"
BASIC = ("CloneFlagsAttr", "NsPathsAttr", "UidmapAttr", "GidmapAttr", "SetgroupAttr", "OomScoreAdjAttr")
PATHS = ("UidmapPathAttr", "GidmapPathAttr")
BYTE = "/* could not inform the parent we are past initial setup */\n"


class Sources:
    """The parts of a line's tree: attributes, more Go in libcontainer, C files, and a version."""

    def __init__(self, symbol, attributes, more, c, version):
        self.symbol, self.attributes, self.more, self.c, self.version = symbol, attributes, more, c, version


CLONED = {"nsexec.c": BYTE, "cloned_binary.c": "", "namespace.h": ""}
NEWER = {"nsexec.c": "", "log.c": "", "log.h": "", "getenv.c": "", "getenv.h": "", "escape.c": "", "namespace.h": ""}
LINES = {
    "1.2": Sources("nsexec", ("RootlessEUIDAttr", *PATHS, "TimeOffsetsAttr"), 'const p = "stage2_pid"', NEWER, "1.5.1"),
    "1.1": Sources(
        "nsexec_v1_1", ("RootlessEUIDAttr", *PATHS, "MountSourcesAttr"), 'const p = "stage2_pid"',
        {**CLONED, "escape.c": ""}, "1.1.15",
    ),
    "1.0": Sources(
        "nsexec_v1_0", ("RootlessEUIDAttr", *PATHS), 'const p = "stage2_pid"\n\ntype ErrorCode int', CLONED, "1.0.3"
    ),
    "2018": Sources(
        "nsexec_seed", ("RootlessAttr", *PATHS), 'const p = "pid_first"\n\ntype ErrorCode int',
        {"nsexec.c": "", "namespace.h": ""}, "1.0.0-rc5+dev",
    ),
}


# The row of the table in docs/go.md whose build command the script prints.
ROWS = {
    "1.2": "runc 1.5 and main",
    "1.1": "runc 1.1.0 to 1.1.15",
    "1.0": "runc 1.0.0-rc94 to 1.0.3",
    "2018": "runc of 2018, before 1.0.0-rc6",
}


def place(stack, line):
    """The directory of a line's tree; before Go modules it was in a GOPATH."""
    return stack.folder() / "src" / RUNC if line == "2018" else stack.folder() / "runc"


def make(folder, line, **other):
    """Makes a tree of that line in `folder`; `other` replaces parts of it."""
    sources = LINES[line]
    attributes, c = other.get("attributes", sources.attributes), other.get("c", sources.c)
    libcontainer = folder / "libcontainer"
    nsenter = libcontainer / "nsenter"
    (nsenter / "test").mkdir(parents=True)
    numbers = "".join(f"\t{name} uint16 = {27281 + at}\n" for at, name in enumerate((*BASIC, *attributes)))
    (libcontainer / "message_linux.go").write_text(f"package libcontainer\n\nconst (\n{numbers})\n")
    (libcontainer / "more.go").write_text(f"package libcontainer\n\n{other.get('more', sources.more)}\n")
    for name, text in c.items():
        (nsenter / name).write_text(text)
    (nsenter / "nsenter.go").write_text('package nsenter\n\nimport "C"\n')
    (nsenter / "nsenter_gccgo.go").write_text("//go:build gccgo\n// +build gccgo\n\npackage nsenter\n")
    (nsenter / "nsenter_test.go").write_text("package nsenter\n")
    (nsenter / "README.md").write_text("About nsenter.\n")
    (nsenter / "test/escape.go").write_text('package escapetest\n\n// #include <stdlib.h>\nimport "C"\n')
    (nsenter / "test/escape.c").symlink_to("../escape.c")
    imports = f'import (\n\t_ "{RUNC}/libcontainer"\n\t_ "{RUNC}/libcontainer/nsenter"\n)'
    (folder / "main.go").write_text(f"package main\n\n{imports}\n\nfunc main() {{}}\n")
    if line != "2018":
        (folder / "go.mod").write_text(f"module {RUNC}\n\ngo 1.17\n")
        (folder / "vendor").mkdir(exist_ok=True)
        (folder / "vendor/modules.txt").touch()
    tags = "seccomp libpathrs" if line == "1.2" else "seccomp"
    (folder / "Makefile").write_text(f"BUILDTAGS := {tags}\nBUILDTAGS += $(EXTRA_BUILDTAGS)\n")
    (folder / "VERSION").write_text(other.get("version", sources.version) + "\n")
    return folder


def replace(folder):
    return subprocess.run([REPLACE, folder], stdin=subprocess.DEVNULL, capture_output=True, text=True)


def build(go, environment, folder, *options):
    """Runs `go build`, with the archive's directory in the environment. Returns the status and the output."""
    if RUNC in str(folder):
        gopath = str(folder).removesuffix(f"/src/{RUNC}")
        environment = {**environment, "GO111MODULE": "off", "GOPATH": gopath}
    return subprocess.run(
        [go, "build", *options, "-o", folder / "runc", "."], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
        capture_output=True, text=True,
    )


def constructor(folder):
    """The symbol that the program's constructor calls: the archive itself defines all of them."""
    text = subprocess.run(
        ["objdump", "-d", "--no-show-raw-insn", folder / "runc"], capture_output=True, text=True, check=True
    ).stdout
    start = re.search(r"<start>:\n(.*?)\n\n", text, re.DOTALL)
    called = start and re.search(r"(?:jmp|call) +[0-9a-f]+ <(\w+)>", start.group(1))
    return called and called.group(1)


def recognised(stack, go, environment, line):
    """The package calls the line's symbol with any tag, and does not compile with another line's
    libcontainer."""
    folder = make(place(stack, line), line)
    done = replace(folder)
    symbol = LINES[line].symbol
    if done.returncode != 0 or f"symbol {symbol}." not in done.stdout:
        return f"status {done.returncode}\n{done.stdout}{done.stderr}"
    command = recipes.GoPage().in_place[ROWS[line]]
    if done.stdout.splitlines()[-1] != f"    PKG_CONFIG_PATH={recipes.ARCHIVE} {command}":
        return f"docs/go.md builds with\n{command}\nand the script prints\n{done.stdout}"
    kept = {path.name for path in (folder / "libcontainer/nsenter").rglob("*") if not path.is_dir()}
    expected = {"nsexec.go", "unsupported.go", "nsenter_test.go", "README.md", "escape.go"}
    if {name for name in kept if not name.startswith("is_for_")} != expected:
        return f"in the package are {sorted(kept)}"
    if "// #cgo pkg-config: nsexec\n" not in (folder / "libcontainer/nsenter/test/escape.go").read_text():
        return "the test of escape_json_string does not link the archive"
    for tag in ("", "nsexec_v1_1 nsexec_v1_0"):
        done = build(go, environment, folder, "-tags", tag)
        if done.returncode != 0 or constructor(folder) != symbol:
            return f"with tag {tag!r}: status {done.returncode}, {constructor(folder)}\n{done.stderr}"
    for other in LINES:
        if other == line:
            continue
        newer = make(place(stack, other), other)
        shutil.rmtree(newer / "libcontainer/nsenter")
        shutil.copytree(folder / "libcontainer/nsenter", newer / "libcontainer/nsenter")
        done = build(go, environment, newer)
        reported = re.search(r"is_for_runc_\w+\.go:\d+:\d+: undefined: libcontainer\.", done.stderr)
        if done.returncode == 0 or not reported:
            return f"with the libcontainer of {other}: status {done.returncode}\n{done.stderr}"
        done = replace(newer)
        if done.returncode != 0 or build(go, environment, newer).returncode != 0:
            return f"replaced anew for {other}: status {done.returncode}\n{done.stderr}"
        if constructor(newer) != LINES[other].symbol:
            return f"replaced anew for {other} it calls {constructor(newer)}"
    return ""


def vendored(stack, go, environment, named):
    """A program with a vendored libcontainer: DIR is the program's directory, or the package's."""
    program = stack.folder() / "vendor of containers"
    inner = program / "vendor" / RUNC
    make(inner, "1.1")
    shutil.rmtree(inner / "vendor")
    for name in ("go.mod", "main.go", "VERSION", "Makefile"):
        shutil.move(inner / name, program / name)
    shutil.rmtree(inner / "libcontainer/nsenter/test")
    (program / "go.mod").write_text(f"module example.org/program\n\ngo 1.17\n\nrequire {RUNC} v1.1.15\n")
    (program / "vendor/modules.txt").write_text(
        f"# {RUNC} v1.1.15\n## explicit; go 1.17\n{RUNC}/libcontainer\n{RUNC}/libcontainer/nsenter\n"
    )
    done = replace(program if named == "program" else inner / "libcontainer/nsenter")
    if done.returncode != 0:
        return f"status {done.returncode}\n{done.stderr}"
    done = build(go, environment, program, "-mod=vendor")
    found = done.returncode == 0 and constructor(program)
    return "" if found == "nsexec_v1_1" else f"status {done.returncode}, {found}\n{done.stderr}"


def unknown_attribute(folder):
    make(folder, "1.2", attributes=(*LINES["1.2"].attributes, "SetupUIDAttr"))


def both_attributes(folder):
    make(folder, "1.2", attributes=(*LINES["1.2"].attributes, "MountSourcesAttr"))


def candidate_of_1_0(folder):
    make(folder, "1.0", more='const p = "pid_first"')


def candidate_of_1_2(folder):
    make(folder, "1.2", c={**NEWER, "nsexec.c": BYTE})


def c_of_another_line(folder):
    make(folder, "1.1", c=NEWER)


def version_of_another_line(folder):
    make(folder, "1.1", version="1.3.6")


def unknown_c_file(folder):
    (make(folder, "1.2") / "libcontainer/nsenter/extra.c").write_text("")


def unknown_go_file(folder):
    (make(folder, "1.2") / "libcontainer/nsenter/extra.go").write_text("package nsenter\n")


def no_c(folder):
    (make(folder, "1.2") / "libcontainer/nsenter/nsexec.c").unlink()


def no_libcontainer(folder):
    (make(folder, "1.2") / "libcontainer/message_linux.go").unlink()


def no_package(folder):
    shutil.rmtree(make(folder, "1.2") / "libcontainer/nsenter")


def no_import_path(folder):
    (make(folder, "1.2") / "go.mod").unlink()


def two_packages(folder):
    make(folder, "1.2")
    make(folder / "vendor" / RUNC, "1.2")


def another_escape_test(folder):
    (make(folder, "1.2") / "libcontainer/nsenter/test/escape.go").write_text("package escapetest\n")


REFUSALS = {
    unknown_attribute: "defines SetupUIDAttr, an attribute of the bootstrap message that this nsexec does not know",
    both_attributes: "is of runc's main between 1.1 and 1.2",
    candidate_of_1_0: "a release candidate from 1.0.0-rc6 to 1.0.0-rc93",
    candidate_of_1_2: "a release candidate of runc 1.2.0",
    c_of_another_line: "libcontainer is that of runc 1.1.0 to 1.1.15, but the C in",
    version_of_another_line: "VERSION says 1.3.6",
    unknown_c_file: "extra.c is not a file of runc's package nsenter",
    unknown_go_file: "extra.go is not a file of runc's package nsenter",
    no_c: "has no nsexec.c",
    no_libcontainer: "has no message_linux.go",
    no_package: "has no libcontainer/nsenter and no vendored one",
    no_import_path: "the import path of",
    two_packages: "has two packages nsenter",
    another_escape_test: "has no line 'import \"C\"'",
}


def refused(stack, _go, _environment, damage):
    """Status 1, the reason, and an unchanged tree."""
    words = REFUSALS[damage]
    folder = stack.folder() / "runc"
    damage(folder)
    before = recipes.files(folder)
    done = replace(folder)
    right = done.returncode == 1 and words in done.stderr and "Nothing was changed." in done.stderr
    if not right or recipes.files(folder) != before:
        return f"status {done.returncode}, changed: {recipes.files(folder) != before}\n{done.stdout}{done.stderr}"
    return ""


CASES = {
    **{f"replace recognises runc {line}": (recognised, line) for line in LINES},
    **{f"replace takes a vendored {named}": (vendored, named) for named in ("program", "package")},
    **{f"replace refuses {damage.__name__.replace('_', ' ')}": (refused, damage) for damage in REFUSALS},
}


def suite(job, name, stack, go, environment):
    """`environment`: for `go build`, without modules from outside."""
    for title, (case, argument) in CASES.items():
        if job.wants(name, title):
            job.judge.check(f"{name} {title}", case(stack, go, environment, argument))
