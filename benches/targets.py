"""The targets: by group, case and program, the limit of the ratio nsexec/PROGRAM, or of nsexec's own value.

A number is an upper limit. ("min", NUMBER) is a lower limit.
"""


def each(cases, *limits):
    return dict(zip(cases, limits, strict=True))


RATIOS = {
    "library": {
        "unshare(1)": each("bcd", 0.60, 0.75, 0.75),
        "nsenter(1)": each("e", 0.60),
        "floor": each("bcd", 1.25, 1.15, 1.20),
        "bubblewrap": each("bcd", 0.40, 0.40, 0.40),
        "hakoniwa": each("bcd", 0.40, 0.40, 0.40),
    },
    "program, static": {
        "unshare(1)": {**each("bcd", 0.80, 0.80, 0.80), "--version": 0.60},
        "nsenter(1)": {"e": 0.80, "e without mnt": 0.80},
    },
    "archive, dynamic": {"runc's C": each("abcde", 0.90, 0.91, 0.93, 0.92, 0.86)},
    "archive, static": {"runc's C": each("abcde", 1.00, 1.00, 1.00, 1.00, 1.00)},
    "archive, memory": {"runc's C": {"dynamic": 1.1, "static": 1.1}},
    "recorder": {"without": {"library, b": 1.25}},
}

# The growth of nsexec with a larger parent. That with mounts has unshare(1)'s growth as its limit.
GROWTH = {"256 MiB": 1.3, "256 threads": 1.2, "10,000 descriptors": 1.3}

VALUES = {
    ("archive, page faults", "dynamic"): 95,
    ("threads", "4 threads, against 1"): ("min", 1.7),
    ("threads", "failures in 100,000"): 0,
    ("parser", "308 bytes"): 1.2,
    ("parser", "allocations"): 0,
    ("plan", "the largest"): 5.0,
    ("size", "stripped, static"): 3.0,
    ("sweep", "CPU"): 60.0,
    ("recorder", "changed"): 0,
}


def of_ratio(group, case, peer):
    return RATIOS.get(group, {}).get(peer, {}).get(case)


def of_value(group, case):
    return VALUES.get((group, case))
