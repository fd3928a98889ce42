"""Containers as OCI runtime specifications, and their root directory: one static busybox.

Runs as part of `run`; it writes below the run's directory.
"""

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

from packages import install

ENVIRONMENT = ["PATH=/bin", "TERM=dumb"]
BASIC = ("pid", "network", "ipc", "uts", "mount")
CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_SETGID", "CAP_SETUID", "CAP_CHOWN"]

# A container's process prints its attributes; then it waits for a line with its exit status.
TELL = r"""
id
hostname
for name in uid_map gid_map setgroups oom_score_adj timens_offsets cgroup; do
    echo "$name:"; cat /proc/self/$name 2>&1 | tr -s ' \t' ' '
done
readlink /proc/self/ns/*
grep -E '^(Uid|Gid|Groups|NSpid|NSpgid|NSsid|Cap|NoNewPrivs|Seccomp|Sig(Blk|Ign|Cgt))' /proc/self/status
for number in 0 1 2 3 4 5 6 7 8 9; do readlink /proc/$$/fd/$number; done
"""
WAIT = r"""
echo ready
read -r status
exit "$status"
"""


def shell(script):
    return ["/bin/sh", "-c", script]


def busybox_root(folder):
    """A root directory below `folder`, with every mount point."""
    install("busybox-static")
    root = Path(folder) / "rootfs"
    for name in ("bin", "dev", "proc", "sys", "tmp", "etc", "data"):
        (root / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin/busybox")
    names = subprocess.run(["/bin/busybox", "--list"], capture_output=True, text=True, check=True).stdout.split()
    for name in names:
        if name != "busybox":
            (root / "bin" / name).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\nsomebody:x:5:5:somebody:/:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nsomebody:x:5:\n")
    return root


def mount(destination, kind, source, *options):
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}


def bind(source, destination, *options):
    return mount(destination, "bind", str(source), "bind", *options)


def process(args, uid=0, gid=0, groups=()):
    user = {"uid": uid, "gid": gid}
    if groups:
        user["additionalGids"] = list(groups)
    kinds = ("bounding", "effective", "permitted")
    capabilities = {kind: CAPABILITIES for kind in kinds}
    # No terminal, since its number would differ between runs.
    return {
        "terminal": False, "user": user, "args": args, "env": ENVIRONMENT, "cwd": "/",
        "capabilities": capabilities, "noNewPrivileges": False,
    }


def spec(
    root, args, *, namespaces=BASIC, join=None, uids=None, gids=None, mounts=(), oom=None, offsets=None, user=None
):
    """`namespaces`: kinds to create. `join`: paths by kind. `uids`, `gids`: triples of container, host,
    size."""
    spaces = [{"type": kind} for kind in namespaces]
    spaces += [{"type": kind, "path": str(path)} for kind, path in (join or {}).items()]
    own_process = process(args) if user is None else process(args, *user)
    if oom is not None:
        own_process["oomScoreAdj"] = oom
    linux = {"namespaces": spaces, "maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"]}
    if uids:
        linux["uidMappings"] = [dict(zip(("containerID", "hostID", "size"), line)) for line in uids]
        linux["gidMappings"] = [dict(zip(("containerID", "hostID", "size"), line)) for line in gids or uids]
    if offsets:
        linux["timeOffsets"] = offsets
    made = {
        "ociVersion": "1.0.2",
        "root": {"path": str(root), "readonly": False},
        "process": own_process,
        "mounts": [
            mount("/proc", "proc", "proc"),
            mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
            *mounts,
        ],
        "linux": linux,
    }
    if "uts" in namespaces:
        made["hostname"] = "inside"
    return made


def image(root, to, name):
    """Writes an OCI image of one layer, as the tar file for `ctr images import`."""
    layer = to.parent / "layer.tar"
    plain = ["--sort=name", "--mtime=@0", "--owner=0", "--group=0"]
    subprocess.run(["tar", "-C", root, *plain, "-cf", layer, "."], check=True)
    content = to.parent / "image"
    (content / "blobs/sha256").mkdir(parents=True)

    def blob(kind, data):
        digest = hashlib.sha256(data).hexdigest()
        (content / "blobs/sha256" / digest).write_bytes(data)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    def document(kind, **words):
        return blob(kind, json.dumps(words).encode())

    whole = blob("layer.v1.tar", layer.read_bytes())
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    config = document(
        "config.v1+json", os="linux", architecture=machine, config={"Env": ENVIRONMENT, "Cmd": ["/bin/sh"]},
        rootfs={"type": "layers", "diff_ids": [whole["digest"]]},
    )
    manifest = document("manifest.v1+json", schemaVersion=2, config=config, layers=[whole])
    manifest["annotations"] = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
    (content / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [manifest]}))
    (content / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    subprocess.run(["tar", "-C", content, "-cf", to, "oci-layout", "index.json", "blobs"], check=True)
