"""The control of the system call filter: without it, many of the same programs get what they want.

And the other layers (namespaces, mounts, limits) are shown to stand by themselves: even then, no canary is harmed.
"""

from __future__ import annotations

import pytest

from lapha.sandbox import BubblewrapSandbox, Limits
from lapha.sandbox.jail import walls
from sandbox.availability import need_bubblewrap

from .canaries import Canaries
from .corpus import all_programs

# a launcher whose filter for guests lets everything through but what the jail itself works with
_WITHOUT_FILTER = """
import sys
sys.path.insert(0, "/lapha/code")
from lapha.sandbox.jail import seccomp as s
fork = [s._load(s._arg(0)), s._equal(s.FORK_FLAGS, 0, 1), s._return(s._NOTIFY), s._return(s._ALLOW)]
rules = [s._load(s._LD_NR), *s._only_if(s.HYPERCALL, s._return(s._NOTIFY)), *s._only_if(s.NR_CLONE, *fork)]
rules += [rule for number in s.BROKERED for rule in s._only_if(number, s._return(s._NOTIFY))]
s.branch_program = lambda: b"".join([*rules, s._return(s._ALLOW)])
from lapha.sandbox.jail.launcher import main
main(int(sys.argv[1]))
"""

# only the filter stops these; each is harmless in a jail of its own
STOPPED_BY_THE_FILTER = [
    "give a file other rights",
    "make a pipe file",
    "lock a file of the host",
    "watch files of the host",
    "send by UDP",
    "serve by http.server",
    "connect by libc",
    "a netlink socket",
    "fork by system call",
    "clone with other flags",
    "clone into new namespaces",
    "clone3",
    "start a thread",
    "become a program from memory",
    "signal its parent",
    "take a handle on a process",
    "trace itself",
    "have signals sent by the kernel",
    "ask to be told of its parent's death",
    "slow others down",
    "hear of its children's deaths",
    "set an alarm for later",
    "set a timer for later",
    "run code at a signal",
    "add a key",
    "change its personality",
    "shared memory",
    "a message queue",
    "memory without a name",
    "be read by others",
    "memory that forks would share",
]


@pytest.mark.anyio
async def test_without_the_filter_they_escape_it_and_still_harm_nothing(monkeypatch, tmp_path):
    need_bubblewrap()
    monkeypatch.setattr(walls, "OUTER_BOOT", _WITHOUT_FILTER)
    programs = {program.name: program for program in all_programs()}
    canaries = Canaries(tmp_path)
    try:
        with BubblewrapSandbox(
            Limits(wall_seconds=5, cpu_seconds=3), concurrency=2, packages=(), preload=()
        ) as sandbox:
            root = sandbox.open()
            held = []
            for name in STOPPED_BY_THE_FILTER:
                branch = root.fork()
                result = await branch.run(canaries.fill(programs[name].code))
                branch.close()
                if "ESCAPED" not in result.output:
                    held.append(name)
        assert held == []
        assert canaries.harm() == []
    finally:
        canaries.close()
