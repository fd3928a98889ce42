"""A packager's tree: runc's source as a Go module with its vendor directory, made from a GOPATH of Debian's
packages.

Runs as part of `run`; it calls the go command, and writes below the given directory. Debian's packages hold
the files of the modules, but neither a vendor directory nor module archives. So this code makes a module
proxy of the files, and `go mod vendor` fills vendor from it. It does not use the network.
"""

import json
import os
import re
import shutil
import zipfile
from pathlib import Path

from packages import WORK, output

RUNC = "github.com/opencontainers/runc"


class Tree:
    """A checkout of runc in `folder`, and the environments for a packager's work there."""

    def __init__(self, go, gopath, work):
        self.go, self.work = Path(go), work
        self.source = Path(gopath) / "src"
        self.folder = work / "runc"
        self.proxy = work / "proxy"

    def environment(self, proxy=False, **more):
        """A packager's environment: no network, and modules from vendor only. `proxy`: with the module
        proxy."""
        modules = {"GOPROXY": f"file://{self.proxy}", "GOFLAGS": "-modcacherw"} if proxy else {"GOPROXY": "off"}
        return {
            "PATH": f"{self.go.parent}:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.work),
            "GOPATH": str(self.work / "gopath"),
            # As runc's Makefile does; and trees in several directories share the cache.
            "GOFLAGS": "-trimpath",
            "GOCACHE": str(WORK / "go-cache"),
            "GOTOOLCHAIN": "local",
            "GOSUMDB": "off",
            **modules,
            **more,
        }

    def make(self):
        """Makes the source with its vendor directory. Removes Debian's line that excludes a test from the
        build."""
        shutil.copytree(self.source / RUNC, self.folder, symlinks=True)
        for test in self.folder.rglob("*_test.go"):
            text = test.read_text()
            test.write_text(re.sub(r"\A// \+build ignore\n\n", "", text))
        # Debian's files differ from those whose hashes are in go.sum.
        (self.folder / "go.sum").unlink(missing_ok=True)
        self.sum([f"{path}@{version}" for path, version in self.fill_proxy().items()])
        self.vendor()
        return self

    def sum(self, versions):
        """Adds the lines of these modules to go.sum."""
        output(self.go, "mod", "download", *versions, cwd=self.folder, env=self.environment(proxy=True))

    def vendor(self):
        output(self.go, "mod", "vendor", cwd=self.folder, env=self.environment(proxy=True))

    def fill_proxy(self):
        """Adds every module of go.mod; and adds requirements for the modules that Debian's newer versions
        import."""
        described = json.loads(self.edit("-json"))
        # Before 1.17, vendor/modules.txt lacks the language version of each module.
        language = max(described.get("Go", "1.16"), "1.17", key=numbers)
        self.edit(f"-go={language}")
        wanted = {module["Path"]: module["Version"] for module in described["Require"]}
        for go_mod in self.source.rglob("go.mod"):
            named = re.search(r"^module +(\S+)", go_mod.read_text(), re.MULTILINE)
            path = named and named.group(1)
            if path and path not in wanted and go_mod.parent == self.place(path) and path != RUNC:
                version = f"v{major(path) or 0}.0.0"
                wanted[path] = version
                self.edit(f"-require={path}@{version}")
        present = {path: version for path, version in wanted.items() if self.place(path).is_dir()}
        for path, version in present.items():
            self.archive(path, version, language)
        return present

    def edit(self, *how):
        return output(self.go, "mod", "edit", *how, cwd=self.folder, env=self.environment())

    def place(self, path):
        """Debian's directory of a module: some packages omit the major version."""
        place = self.source / path
        return place if place.is_dir() else self.source / re.sub(r"/v\d+$", "", path)

    def archive(self, path, version, newest):
        """Writes the three files of one version, as a module proxy serves them."""
        place = self.place(path)
        folder = self.proxy / escaped(path) / "@v"
        folder.mkdir(parents=True)
        go_mod = place / "go.mod"
        named = re.search(r"^go +(\S+)", go_mod.read_text(), re.MULTILINE) if go_mod.exists() else None
        language = named.group(1) if named else newest
        if numbers(newest) >= [1, 21]:
            # From 1.21 on a dependency may not require a newer Go than the main module.
            language = min(language, newest, key=numbers)
        # runc's own go.mod lists the modules that this one requires.
        text = f"module {path}\n\ngo {language}\n"
        (folder / f"{version}.mod").write_text(text)
        (folder / f"{version}.info").write_text(json.dumps({"Version": version}))
        with zipfile.ZipFile(folder / f"{version}.zip", "w") as file:
            for current, below, names in os.walk(place):
                inner = Path(current)
                below[:] = [name for name in below if not (inner / name / "go.mod").exists() and name != "testdata"]
                for name in names:
                    if (inner / name).is_file() and name != "go.mod":
                        file.write(inner / name, f"{path}@{version}/{(inner / name).relative_to(place)}")
            file.writestr(f"{path}@{version}/go.mod", text)
            if path == "golang.org/x/sys" and not (place / "windows").exists():
                # Debian omits this package; `go mod vendor` follows the imports of every system.
                file.writestr(f"{path}@{version}/windows/doc.go", "package windows\n")


def numbers(version):
    return [int(part) for part in re.findall(r"\d+", version)]


def major(path):
    found = re.search(r"/v(\d+)$", path)
    return found and found.group(1)


def escaped(path):
    """A proxy's form of a module path: an upper-case letter becomes `!` and its lower case."""
    return re.sub(r"[A-Z]", lambda letter: "!" + letter.group().lower(), path)
