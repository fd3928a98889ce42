"""A packager's tree: runc's source as a Go module with its folder vendor, made from a GOPATH of Debian's packages.

Who this is: part of `run`. It calls the go command and writes below the folder that it is given. Debian's packages hold
the modules' files, but no vendor folder and no module archives: a folder in the form of a module proxy is made of them,
and `go mod vendor` fills vendor from it. No network is used.
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
    """A checkout of runc in `folder`, and the environments in which a packager works there."""

    def __init__(self, go, gopath, work):
        self.go, self.work = Path(go), work
        self.source = Path(gopath) / "src"
        self.folder = work / "runc"
        self.proxy = work / "proxy"

    def environment(self, proxy=False, **more):
        """As a packager's: no network, and modules from vendor alone. `proxy`: with the folder as module proxy."""
        modules = {"GOPROXY": f"file://{self.proxy}", "GOFLAGS": "-modcacherw"} if proxy else {"GOPROXY": "off"}
        return {
            "PATH": f"{self.go.parent}:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.work),
            "GOPATH": str(self.work / "gopath"),
            # As runc's Makefile does; and trees in several folders share what is in the cache.
            "GOFLAGS": "-trimpath",
            "GOCACHE": str(WORK / "go-cache"),
            "GOTOOLCHAIN": "local",
            "GOSUMDB": "off",
            **modules,
            **more,
        }

    def make(self):
        """The source with its folder vendor. Debian's line that keeps a test from being built is removed."""
        shutil.copytree(self.source / RUNC, self.folder, symlinks=True)
        for test in self.folder.rglob("*_test.go"):
            text = test.read_text()
            test.write_text(re.sub(r"\A// \+build ignore\n\n", "", text))
        # Debian's files are not those of which go.sum has the sums.
        (self.folder / "go.sum").unlink(missing_ok=True)
        self.sum([f"{path}@{version}" for path, version in self.fill_proxy().items()])
        self.vendor()
        return self

    def sum(self, versions):
        """Named modules get their lines in go.sum."""
        output(self.go, "mod", "download", *versions, cwd=self.folder, env=self.environment(proxy=True))

    def vendor(self):
        output(self.go, "mod", "vendor", cwd=self.folder, env=self.environment(proxy=True))

    def fill_proxy(self):
        """Every module of go.mod; and those that Debian's newer versions of them import, with a requirement."""
        described = json.loads(self.edit("-json"))
        # Before 1.17, vendor/modules.txt does not have each module's version of the language.
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
        """Debian's folder of a module: some packages leave the number of the major version out."""
        place = self.source / path
        return place if place.is_dir() else self.source / re.sub(r"/v\d+$", "", path)

    def archive(self, path, version, newest):
        """The three files of one version, as a module proxy serves them."""
        place = self.place(path)
        folder = self.proxy / escaped(path) / "@v"
        folder.mkdir(parents=True)
        go_mod = place / "go.mod"
        named = re.search(r"^go +(\S+)", go_mod.read_text(), re.MULTILINE) if go_mod.exists() else None
        language = named.group(1) if named else newest
        if numbers(newest) >= [1, 21]:
            # From 1.21 on a dependency may not ask for a newer Go than the main module does.
            language = min(language, newest, key=numbers)
        # The modules that it requires are in runc's own go.mod.
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
                # Debian leaves it out; `go mod vendor` follows the imports of every system.
                file.writestr(f"{path}@{version}/windows/doc.go", "package windows\n")


def numbers(version):
    return [int(part) for part in re.findall(r"\d+", version)]


def major(path):
    found = re.search(r"/v(\d+)$", path)
    return found and found.group(1)


def escaped(path):
    """A proxy's form of a module path: an upper-case letter is `!` and its lower case."""
    return re.sub(r"[A-Z]", lambda letter: "!" + letter.group().lower(), path)
