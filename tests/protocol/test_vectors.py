"""Every message of tests/vectors in this dialect, sent by the independent parent.

Runs as root, as the parent of `nsexec init`. Stage 2 exits at once after a message that succeeds. Two vectors
name paths that a machine lacks. One names the net namespace of process 1, which a root with fewer
capabilities may not open. For these three, stage 0 starts in a mount namespace in which the path is the
caller's net namespace.
"""

import glob
import json
import os
import unittest

import fixture
import parent

# Vectors of v1_2 that parse, but that this kernel or this byte order refuses, with the refusal. The test
# limits their number, so that a new vector cannot be skipped silently.
CANNOT_RUN = {
    "24_id_map_340_extents": (r"4310|4311|4,?095|4,?096|too long|too large", "a map of 4,310 bytes does not fit into one write"),
    "25_attr_max_u16": (r"27283|uid", "the same range ten thousand times, and 65 KiB of it"),
    "30_minimal_big_endian": (r"536870912|message|length|large|type", "the bytes of a big-endian host"),
}


def vectors(dialect):
    found = {}
    for path in sorted(glob.glob(os.path.join(fixture.VECTORS, "*.json"))):
        with open(path) as file:
            vector = json.load(file)
        if vector["dialect"] == dialect:
            found[os.path.basename(path)[:-5]] = vector
    return found


def may_lower_oom_score():
    """A root without CAP_SYS_RESOURCE may not, as in many virtual machines."""
    return int(parent.status_of("self")["CapEff"], 16) >> 24 & 1 == 1


def with_paths(*paths):
    """For the child before its exec: a mount namespace in which these paths are net namespaces."""
    def prepare():
        parent.unshare(parent.NEWNS)
        parent.mount("none", "/", None, parent.MS_REC | parent.MS_PRIVATE)
        source = f"/proc/{os.getpid()}/ns/net"
        kept = os.open(source, os.O_RDONLY)
        for top in {b"/run" if path.startswith(b"/run") else b"/proc/1" for path in paths}:
            parent.mount("none", top, "tmpfs")
        for path in paths:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_RDONLY))
            parent.mount(f"/proc/self/fd/{kept}", path, None, parent.MS_BIND)
    return prepare


PREPARED = {
    "06_join_net_only": with_paths(b"/proc/1/ns/net"),
    "21_ns_path_not_utf8": with_paths(b"/run/netns/\xff\xfe\x80"),
    "22_ns_path_with_colon": with_paths(b"/run/a:b"),
}


class Vectors(fixture.ProtocolTest):
    def test_ok_vectors(self):
        ran, refused = 0, []
        for name, vector in vectors("v1_2").items():
            if "ok" not in vector["expected"]:
                continue
            with self.subTest(vector=name):
                data = bytes.fromhex(vector["hex"])
                if name in CANNOT_RUN:
                    words, _ = CANNOT_RUN[name]
                    run = self.start()
                    run.try_send(data)
                    run.shut_down()
                    self.assertRefused(run, words)
                    self.assertEqual(run.texts("0"), [], "refused before any fork")
                    refused.append(name)
                    continue
                if name == "01_rootful_five_ns" and not may_lower_oom_score():
                    run = self.start()
                    run.try_send(data)
                    self.assertRefused(run, r"^failed to update /proc/self/oom_score_adj: Permission denied$")
                    refused.append(name)
                    continue
                run = self.start(prepare=PREPARED.get(name))
                run.like_init(data)
                left = vector["expected"].get("leftover_bytes", 0)
                if left:
                    run.until(lambda: run.init_eof, "the stages end")
                    self.assertTrue(run.init_reset, "the surplus was left unread")
                self.assertHandedOver(run)
                ran += 1
        print(f"\n  ok vectors: {ran} ran, {len(refused)} refused as they must be here: {' '.join(refused)}", flush=True)
        self.assertEqual(ran + len(refused), 18)
        self.assertLessEqual(len(refused), len(CANNOT_RUN) + 1)

    def test_error_vectors(self):
        ran = 0
        for name, vector in vectors("v1_2").items():
            if "error" not in vector["expected"]:
                continue
            with self.subTest(vector=name):
                error = vector["expected"]["error"]
                run = self.start()
                run.try_send(bytes.fromhex(vector["hex"]))
                if error["kind"].startswith("truncated_"):
                    run.shut_down()  # all other vectors must be refused with the pipe open
                # Every detail of the error is in the one record: the attribute, the length, the entry.
                words = [rf"(?<![0-9]){value}(?![0-9])" if isinstance(value, int) else value
                         for key, value in error.items() if key != "kind"]
                self.assertRefused(run, *words)
                self.assertEqual(run.texts("0") + run.texts("1"), [], "refused before any fork")
                ran += 1
        print(f"\n  error vectors: {ran} refused", flush=True)
        self.assertEqual(ran, 25)


class MoreMalformed(fixture.ProtocolTest):
    """More malformed messages, which runc's C accepts or fails on, and which are not vectors."""

    def refuse(self, data, *words, shut=False):
        run = self.start()
        run.try_send(data)
        if shut:
            run.shut_down()
        return self.assertRefused(run, *words)

    def test_attribute_lengths_0_to_3(self):
        for length in range(4):
            self.refuse(parent.frame(parent.attribute(27281, b"\0\0\0\0", nla_len=length)), rf"\b{length}\b")

    def test_attribute_past_the_end(self):
        self.refuse(parent.frame(parent.attribute(27286, b"0\0\0\0", nla_len=60000)), "60000")

    def test_trailing_bytes(self):
        for count in (1, 2, 3):
            self.refuse(parent.frame(parent.u32(27281, 0) + b"\0" * count), rf"\b{count}\b")

    def test_message_lengths(self):
        self.refuse(parent.frame(b"", nlmsg_len=8), r"\b8\b")
        self.refuse(parent.frame(b"", nlmsg_len=0), r"\b0\b")
        self.refuse(parent.frame(b"", nlmsg_len=0xFFFFFFFF), "4294967295")
        self.refuse(parent.frame(b"", nlmsg_len=(1 << 20) + 1), str((1 << 20) + 1))

    def test_empty_bootstrap(self):
        self.refuse(parent.frame(b""), "27281|CLONE_FLAGS|clone flags")

    def test_attribute_twice(self):
        self.refuse(parent.frame(parent.u32(27281, 0) * 2), "27281")

    def test_namespace_twice(self):
        self.refuse(parent.message(paths="net:/proc/self/ns/net,net:/proc/self/ns/net"), "net")

    def test_unknown_attribute(self):
        text = self.refuse(parent.frame(parent.u32(27281, 0) + parent.u32(30000, 0)), "unknown netlink message type 30000")
        self.assertNotIn("Success", text)


if __name__ == "__main__":
    unittest.main()
