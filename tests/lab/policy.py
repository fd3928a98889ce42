"""A small SELinux policy, in the language CIL of secilc(8).

Everything is allowed, except to relabel a file of the type `kept_t`. Files of mqueue and of tmpfs get the type of
their file system. A process that the policy confines is not needed: the tests look at the labels of files, and at
what the kernel's owner checks allow.
"""

import subprocess
import tempfile
from pathlib import Path

from packages import install

# The initial security ids in the order of the kernel (security/selinux/include/initial_sid_to_string.h).
SIDS = """kernel security unlabeled fs file file_labels init any_socket port netif netmsg node igmp_packet icmp_socket
tcp_socket sysctl_modprobe sysctl sysctl_fs sysctl_kernel sysctl_net sysctl_net_unix sysctl_vm sysctl_dev kmod policy
scmp_packet devnull""".split()

FILE = """ioctl read write create getattr setattr lock relabelfrom relabelto append map unlink link rename execute
quotaon mounton audit_access open execmod watch watch_mount watch_sb watch_with_perm watch_reads"""

# Classes that the policy does not name are allowed.
CLASSES = {
    "process": """fork transition sigchld sigkill sigstop signull signal ptrace getsched setsched getsession getpgid
        setpgid getcap setcap share getattr setexec setfscreate noatsecure siginh setrlimit rlimitinh dyntransition
        setcurrent execmem execstack execheap setkeycreate setsockcreate getrlimit""",
    "filesystem": "mount remount unmount getattr relabelfrom relabelto associate quotamod quotaget watch",
    "dir": FILE + " add_name remove_name reparent search rmdir",
    "file": FILE + " execute_no_trans entrypoint",
}

# The types: of processes, of files, of message queues, of a container's files, and of files that keep their label.
TYPES = ["base_t", "file_t", "mqueue_t", "container_t", "kept_t"]


def text():
    lines = ["(handleunknown allow)", "(mls false)"]
    for name, permissions in CLASSES.items():
        lines.append(f"(class {name} ({' '.join(permissions.split())}))")
    lines.append(f"(classorder ({' '.join(CLASSES)}))")
    lines += [f"(sid {sid})" for sid in SIDS]
    lines.append(f"(sidorder ({' '.join(SIDS)}))")
    lines += [
        "(sensitivity s0)", "(sensitivityorder (s0))", "(category c0)", "(categoryorder (c0))",
        "(sensitivitycategory s0 (c0))", "(level low (s0))", "(level high (s0 (c0)))", "(levelrange all (low high))",
        "(user u)", "(role r)", "(role object_r)", "(userrole u r)", "(userrole u object_r)",
        "(userlevel u low)", "(userrange u all)",
    ]
    for name in TYPES:
        lines += [f"(type {name})", f"(roletype object_r {name})"]
    lines.append("(roletype r base_t)")
    lines += [
        "(context processes (u r base_t all))", "(context files (u object_r file_t (low low)))",
        "(context queues (u object_r mqueue_t (low low)))",
    ]
    lines += [f"(sidcontext {sid} {'processes' if sid in ('kernel', 'init') else 'files'})" for sid in SIDS]
    lines += ["(fsuse trans mqueue queues)", "(fsuse trans tmpfs files)"]
    lines += ["(fsuse task pipefs files)", "(fsuse task sockfs files)"]
    lines += [f"(genfscon {name} / files)" for name in ("proc", "sysfs", "rootfs", "selinuxfs")]
    lines += ["(typeattribute every)", f"(typeattributeset every ({' '.join(TYPES)}))"]
    for name, permissions in CLASSES.items():
        kept = [word for word in permissions.split() if word not in ("relabelfrom", "relabelto")]
        lines.append(f"(allow every every ({name} ({' '.join(kept)})))")
        if len(kept) != len(permissions.split()):
            others = [f"(allow every {name_of} ({name} (relabelfrom relabelto)))" for name_of in TYPES if name_of != "kept_t"]
            lines += others
    return "\n".join(lines) + "\n"


def compiled():
    """The policy as the kernel loads it."""
    install("secilc")
    with tempfile.TemporaryDirectory() as folder:
        source, policy, contexts = (Path(folder) / name for name in ("p.cil", "policy", "contexts"))
        source.write_text(text())
        subprocess.run(["secilc", "-c", "33", "-o", policy, "-f", contexts, source], check=True)
        return policy.read_bytes()
