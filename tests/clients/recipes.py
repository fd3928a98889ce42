"""Executes the commands of docs/go.md in trees of runc's real sources, as a packager would.

Who this is: part of `run`, as root: the runc that was built starts a container. The commands are exactly those of docs/go.md.
They find this repository as ../nsexec. Only the path of the archive's folder is replaced.
"""

import re
import shlex
import shutil
import subprocess

import oci
import runtimes
import undo
from build import archive
from modules import RUNC, Tree
from packages import ROOT, WORK, Unavailable
from runc import Runc

# The directory of the archive in docs/go.md.
ARCHIVE = "/usr/local/lib/nsexec"
# The row of the two tables of docs/go.md for each line of runtimes.LINES, and that line's build tag.
ROWS = {"debian12": "runc 1.1.0 to 1.1.15", "sid": "runc 1.2.0 to 1.4"}
TAGS = {"debian12": "nsexec_v1_1", "sid": ""}
# The file of bindings/go/runc that a tag selects: the compiler names it if the tag is wrong.
CHECKS = {
    "": "no_build_tag_is_for_runc_1_2_and_later.go",
    "nsexec_v1_1": "build_tag_is_for_runc_1_1.go",
    "nsexec_v1_0": "build_tag_is_for_runc_1_0.go",
    "nsexec_seed": "build_tag_is_for_runc_of_2018.go",
}


class GoPage:
    """The commands of docs/go.md: `replace` and `module`, and the build commands of both recipes by table row."""

    def __init__(self):
        text = (ROOT / "docs/go.md").read_text()
        in_place = section(text, "Replace the C in place")
        as_a_module = section(text, "Import the binding as a module")
        self.replace, self.module = only_block(in_place), only_block(as_a_module)
        self.in_place, self.as_a_module = builds(in_place), builds(as_a_module)


def section(text, heading):
    return text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def only_block(text):
    """The content of the one fenced block in a section."""
    (block,) = re.findall(r"^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return block


def builds(text):
    """The first cell of each row, and the command in its last cell."""
    return dict(re.findall(r"^\| ([^|]+) \|.*\| `([^`]*go build[^`]*)` \|$", text, re.MULTILINE))


def shell(tree, script, **environment):
    """Runs commands of docs/go.md in the tree. Only the path of the archive is replaced."""
    script = script.replace(ARCHIVE, shlex.quote(str(archive())))
    return subprocess.run(
        ["bash", "-euc", script], cwd=tree.folder, env=tree.environment(**environment), stdin=subprocess.DEVNULL,
        capture_output=True, text=True,
    )


def must(done):
    if done.returncode != 0:
        raise AssertionError(f"{done.args[-1]}\nstatus {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


# Files of runc that also import the package. Debian's packages omit them; these have the same names and
# imports.
IMPORTERS = {
    "libcontainer/example_test.go": "libcontainer_test",
    "libcontainer/integration/init_test.go": "integration",
}
IMPORTER = """\
package {package}

import (
	_ "github.com/opencontainers/runc/libcontainer"
	_ "github.com/opencontainers/runc/libcontainer/nsenter"
)
"""


def prepared(line):
    """A fresh tree of that line, with this repository beside it."""
    # One place for all recipes of a line: Go's cache identifies cgo's files by the directory where they were
    # made.
    work = WORK / "recipes" / line.name
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    (work / "nsexec").symlink_to(ROOT)
    tree = Tree(line.go.binary, line.go.gopath, work).make()
    for name, package in IMPORTERS.items():
        file = tree.folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(IMPORTER.format(package=package))
    return tree


def export(command):
    return f"export PKG_CONFIG_PATH={ARCHIVE}\n{command}"


def starts_a_container(line, tree):
    """Checks that the binary in the tree holds our bootstrap, and runs a container to its end."""
    binary = tree.folder / "runc"
    runtimes.check_whose(binary, ours=True)
    with undo.Undo() as stack:
        run = Runc(stack, binary, line.name)
        done = run.run(oci.shell("echo hello; exit 3")).must(3)
        run.finish()
    if done.out != "hello\n":
        raise AssertionError(f"the container printed {done.out!r}\n{done.err}")


def files(folder):
    """All files below a directory with their bytes, and links with their targets."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(folder))] = path.readlink()
        elif path.is_file():
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found


def in_place(line):
    """The first recipe. Afterwards runc's own tests of the package pass, and `go vet` of everything."""
    page, tree = GoPage(), prepared(line)
    before = files(tree.folder)
    printed = must(shell(tree, page.replace))
    after = files(tree.folder)
    outside = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    outside = {name for name in outside if not name.startswith("libcontainer/nsenter/")}
    if outside:
        raise AssertionError(f"changed outside of libcontainer/nsenter: {sorted(outside)}")
    if "libcontainer/nsenter/nsenter_test.go" not in after:
        raise AssertionError("runc's own test of the package is gone")
    command = page.in_place[ROWS[line.name]]
    if printed.splitlines()[-1].strip() != f"PKG_CONFIG_PATH={ARCHIVE} {command}":
        raise AssertionError(f"docs/go.md builds with\n{command}\nand the script prints\n{printed}")
    must(shell(tree, export(command)))
    starts_a_container(line, tree)
    (tree.folder / "runc").unlink()

    tests = must(shell(tree, export("go test -mod=vendor -count=1 -v ./libcontainer/nsenter/...")))
    passed = re.findall(r"^--- (\w+): (\S+)", tests, re.MULTILINE)
    expected = {"TestNsenterValidPaths", "TestNsenterInvalidPaths", "TestNsenterChildLogging", "TestEscapeJSON"}
    if {name for result, name in passed if result == "PASS"} < expected:
        raise AssertionError(f"runc's own tests of the package: {passed}\n{tests}")
    must(shell(tree, export("go vet -mod=vendor ./...")))

    again = must(shell(tree, page.replace))
    if not again.startswith("Done already: ") or files(tree.folder) != after:
        raise AssertionError(f"a second run changed the tree, or does not say that it did not:\n{again}")


def as_a_module(line):
    """The second recipe. With each wrong tag the compiler stops at the file that names the tag's line."""
    page, tree = GoPage(), prepared(line)
    proxy = tree.environment(proxy=True)
    must(shell(tree, page.module, GOPROXY=proxy["GOPROXY"], GOFLAGS=proxy["GOFLAGS"]))
    theirs = f'"{RUNC}/libcontainer/nsenter"'
    left = [name for name in ("init.go", *IMPORTERS) if theirs in (tree.folder / name).read_text()]
    if left:
        raise AssertionError(f"still import runc's package: {left}")
    command = page.as_a_module[ROWS[line.name]]
    must(shell(tree, export(command)))
    starts_a_container(line, tree)
    must(shell(tree, export(f"go vet -mod=vendor -tags '{TAGS[line.name]}' ./...")))
    for tag, check in CHECKS.items():
        if tag == TAGS[line.name]:
            continue
        wrong = shell(tree, export(f"go build -mod=vendor -tags 'seccomp {tag}' -o runc ."))
        reported = re.search(rf"{re.escape(check)}:\d+:\d+: undefined: libcontainer\.", wrong.stderr)
        if wrong.returncode == 0 or not reported:
            raise AssertionError(f"with tag {tag!r}: status {wrong.returncode}\n{wrong.stderr}")


RECIPES = {"in place": in_place, "as a module": as_a_module}


def suite(job, name):
    """Both recipes with both lines; `name`: the prefix of the cases' names."""
    for line_name, find in runtimes.LINES.items():
        wanted = {title: recipe for title, recipe in RECIPES.items() if job.wants(name, f"{line_name} {title}")}
        if not wanted:
            continue
        try:
            line = find()
        except Unavailable as reason:
            job.judge.skip(f"{name}-{line_name}", reason)
            continue
        for title, recipe in wanted.items():
            problem = ""
            try:
                recipe(line)
            except (AssertionError, RuntimeError) as error:
                problem = str(error)
            finally:
                # A tree with its modules has some 200 MB.
                shutil.rmtree(WORK / "recipes", ignore_errors=True)
            job.judge.check(f"{name} {line_name} {title}", problem)

