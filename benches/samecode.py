"""Compares the machine code of an unrecorded launch in a program without the recorder and in one with it.

Both programs are built without optimisation across crates, so that each function stays where it is. Addresses
differ between the programs; they are replaced by the names that they belong to.
"""

import re

import packages

# The modules whose functions run in a launch.
MODULES = re.compile(r"<?nsexec::(launch|scripts|sys::linux|cloned|deciders|words)::")
FUNCTION = re.compile(r"^[0-9a-f]+ <(.+)>:$")
FLAGS = {"CARGO_PROFILE_RELEASE_LTO": "off", "CARGO_PROFILE_RELEASE_CODEGEN_UNITS": "1"}


def functions(program):
    """Returns the instructions of each function of a launch, by name. A name maps to all functions that have it."""
    packages.install("binutils")
    found, current = {}, None
    for line in packages.output("objdump", "-d", "-C", "--no-show-raw-insn", str(program)).splitlines():
        if header := FUNCTION.match(line):
            name = header.group(1)
            current = found.setdefault(name, [[]]) if MODULES.match(name) else None
            if current is not None and current[-1]:
                current.append([])
        elif current is not None and "\t" in line:
            current[-1].append(normal(line.split("\t", 1)[1]))
    return {name: sorted(copies) for name, copies in found.items()}


def normal(instruction):
    """Returns the instruction without addresses. The file has no names for the data that a load reads."""
    text = re.sub(r"\b[0-9a-f]+ (<[^+>]+)(?:\+0x[0-9a-f]+)?>", r"\1>", instruction)
    text = re.sub(r"0x[0-9a-f]+\(%rip\)|-0x[0-9a-f]+\(%rip\)", "ADDRESS(%rip)", text)
    return re.sub(r"# .*", "", text).strip()


def compared(without, with_recorder):
    """Returns the number of functions, and the names of those that differ or that only one program has."""
    one, other = functions(without), functions(with_recorder)
    # Functions that only the recorder's own launch needs are in the other program alone.
    different = [name for name, code in one.items() if not all(copy in other.get(name, []) for copy in code)]
    return len(one), different
