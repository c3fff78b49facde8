"""Pairs of programs that run at the same time in two branches and try to exchange anything: the table of channels.

`left` sends the word @WORD@ (or does something that can be noticed), `right` prints ESCAPED if, and only if, it has got
it. Both are given the prologue's helpers. With `before`, both branches are forks of one session that has run it;
without, they belong to sessions that have nothing in common. A pair with `control` must succeed outside the sandbox,
which proves that the probe works.
"""

from __future__ import annotations

from dataclasses import dataclass

SECONDS = 0.5
"""How long a pair tries."""

PROLOGUE = """
import ctypes, errno, fcntl, mmap, os, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
END = time.monotonic() + @SECONDS@
def call(number, *arguments):
    result = libc.syscall(number, *[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
    if result < 0: raise OSError(ctypes.get_errno(), number)
    return result
def until(probe):
    while time.monotonic() < END:
        try:
            if probe(): return print('ESCAPED')
        except (OSError, OverflowError): pass
        time.sleep(0.004)
def hold(act=lambda: None):
    while time.monotonic() < END:
        act()
        time.sleep(0.004)
def near():
    return [pid for pid in range(max(2, os.getpid() - 40), os.getpid() + 40) if pid != os.getpid()]
def some(probe):
    for pid in near():
        try:
            if probe(pid): return True
        except (OSError, OverflowError): pass
def library():
    return os.path.realpath(os.__file__)
print('BEGAN', time.time())
"""

EPILOGUE = "\nprint('ENDED', time.time())\n"


@dataclass(frozen=True)
class Pair:
    channel: str
    left: str
    right: str
    control: bool = True
    before: str = ""

    def programs(self) -> tuple[str, str]:
        """Both programs, whole."""
        left, right = (
            PROLOGUE.replace("@SECONDS@", str(SECONDS)) + code + EPILOGUE for code in (self.left, self.right)
        )
        return left, right


def all_pairs() -> list[Pair]:
    from . import files, kernel, processes, sockets

    return [pair for module in (sockets, files, processes, kernel) for pair in module.PAIRS]
