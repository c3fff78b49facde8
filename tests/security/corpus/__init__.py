"""Programs that try what a sandbox must not allow.

A program prints ESCAPED if, and only if, it got what it wanted. Words between @ signs stand for this machine's canaries
(see `Canaries` in the tests). Each `Program` says how it may end; one with `control` must print ESCAPED when it runs
outside the sandbox, which proves that the probe works.
"""

from __future__ import annotations

from dataclasses import dataclass, field

ENDS = frozenset({"ok", "error"})
STOPS = frozenset({"timeout", "cpu", "memory", "crashed", "output", "files"})
ANY = ENDS | STOPS


@dataclass(frozen=True)
class Program:
    name: str
    code: str
    ends: frozenset[str] = ENDS
    control: bool = False
    category: str = field(default="", compare=False)


def all_programs() -> list[Program]:
    from . import files, limits, network, privileges, processes, python

    programs = []
    for module in (files, network, processes, privileges, limits, python):
        category = module.__name__.rpartition(".")[2]
        programs += [Program(p.name, p.code, p.ends, p.control, category) for p in module.PROGRAMS]
    return programs
