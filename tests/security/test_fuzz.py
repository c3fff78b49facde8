"""Random programs: system calls and library calls with arguments that might mean something, and canaries all around."""

from __future__ import annotations

import asyncio
import os
import random

from lapha.sandbox import BubblewrapSandbox, Limits
from sandbox.availability import need_bubblewrap

from .canaries import Canaries

PROGRAMS = int(os.environ.get("LAPHA_FUZZ_PROGRAMS", "160"))
"""More by hand: ``LAPHA_FUZZ_PROGRAMS=20000 pytest tests/security/test_fuzz.py``."""

SEED = int(os.environ.get("LAPHA_FUZZ_SEED", "0"))
LIMITS = Limits(wall_seconds=0.7, cpu_seconds=0.5, memory_bytes=64 << 20, output_bytes=4000, file_bytes=1 << 20)
AT_ONCE = 8

_PROLOGUE = """
import ctypes, os, socket, struct, sys, mmap, time, signal
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def text(value): return ctypes.create_string_buffer(value, max(len(value) + 1, 64))
paths = [text(p) for p in (b'@SECRET_FILE@', b'@SECRET_PARENT@', b'@OUTSIDE@/fuzzed', b'@UNIX@', b'/', b'.', b'..', b'/box',
    b'/proc/self/mem', b'/proc/1/root@SECRET_FILE@', b'/tmp/lapha-escaped-@NONCE@', b'/dev/shm/lapha-escaped-@NONCE@', b'/lapha/code',
    b'tmpfs', b'proc', b'size=9m', b'user', b'file', b'folder/link', b'')]
addresses = [text(struct.pack('<H', 2) + struct.pack('>H', @PORT@) + bytes([127, 0, 0, 1])),
    text(struct.pack('<H', 10) + struct.pack('>HI', @PORT6@, 0) + bytes(15) + b'\\1' + bytes(4)),
    text(struct.pack('<H', 1) + b'\\0@ABSTRACT@'), text(struct.pack('<H', 1) + b'@UNIX@')]
rooms = [text(bytes(4096)) for _ in range(3)]
vectors = [text(struct.pack('QQ', ctypes.addressof(rooms[0]), 4096) * 2)]
numbers = [0, 1, 2, 3, 4, 5, 8, 9, 16, 40, 64, 110, 128, 4096, -1, -100, 2**31, 2**32 - 1, 2**63 - 1, 0x10000000, 0x20000, 0x8020000,
    0x40000000, 0x1200011, @VICTIM@, os.getpid(), os.getppid(), 65536, 6810, 0x541B, 10, 12, 16]
pool = paths + addresses + rooms + vectors + numbers
def call(number, *arguments):
    given = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = libc.syscall(ctypes.c_long(number), *given)
    if 0 <= result < 64: pool.append(result); numbers.append(result)
    return result
def show():
    for room in rooms: print(room.raw[:200])
    for fd in range(64):
        try: print(os.pread(fd, 200, 0))
        except OSError: pass
"""

# what is worth trying more often: files, sockets, memory, processes, namespaces, and the jail's own call
_NOTABLE = (
    *(2, 257, 0, 1, 17, 18, 19, 20, 40, 275, 76, 82, 83, 86, 88, 89, 133, 161, 165, 166, 217, 257, 265, 266, 272, 303, 304, 308),
    *(41, 42, 43, 44, 45, 46, 47, 49, 50, 53, 54, 55, 288, 299, 307, 9, 10, 25, 28, 29, 30, 319, 425, 426, 427),
    *(56, 57, 58, 62, 101, 234, 270, 310, 311, 312, 317, 321, 323, 424, 434, 435, 437, 438, 428, 429, 430, 432, 442, 6810, 16, 72, 157, 202),
)  # fmt: skip
_LIBRARY = (
    "os.symlink(paths[@].value, b'folder/link')", "os.makedirs('folder', exist_ok=True)", "open(paths[@].value).read()",
    "os.listdir(paths[@].value)", "print(open(paths[@].value, 'rb').read(99))", "os.rename(paths[@].value, paths[@].value)",
    "os.link(paths[@].value, b'file')", "os.chdir(paths[@].value)", "os.open(paths[@].value, numbers[@])",
    "socket.socket(numbers[@], numbers[@])", "os.kill(numbers[@], numbers[@])", "os.dup2(numbers[@], numbers[@])",
    "mmap.mmap(numbers[@], 4096, numbers[@], numbers[@])", "os.sendfile(numbers[@], numbers[@], 0, 4096)", "os.pipe()",
    "os.register_at_fork(before=lambda: call(numbers[@], pool[@], pool[@]))", "signal.signal(numbers[@], signal.SIG_IGN)",
    "os.setxattr(paths[@].value, b'user.x', b'x')", "os.truncate(paths[@].value, numbers[@])", "os.fork()", "time.sleep(0.01)",
    "libc.mprotect(ctypes.c_void_p(ctypes.addressof(rooms[0]) & ~4095), 4096, numbers[@])", "os.unlink(paths[@].value)",
)  # fmt: skip


def program(dice: random.Random) -> str:
    """A random program, of 5 to 60 lines that may each fail."""
    lines = []
    for _ in range(dice.randint(5, 60)):
        if dice.random() < 0.75:
            number = dice.choice(_NOTABLE) if dice.random() < 0.7 else dice.randrange(0, 470)
            arguments = ", ".join(f"pool[{dice.randrange(10**6)} % len(pool)]" for _ in range(dice.randint(0, 6)))
            line = f"call({number}{', ' * bool(arguments)}{arguments})"
        else:
            line = dice.choice(_LIBRARY)
            for name in ("paths", "numbers", "pool"):
                while f"{name}[@]" in line:
                    line = line.replace(f"{name}[@]", f"{name}[{dice.randrange(10**6)} % len({name})]", 1)
        lines.append(f"try: {line}\nexcept BaseException: pass")
    return "\n".join([_PROLOGUE, *lines, "show()"])


async def _all(sandbox, canaries):
    root, gate, wrong = sandbox.open(), asyncio.Semaphore(AT_ONCE), []
    await root.run("x = 41")

    async def one(number):
        async with gate:
            code = canaries.fill(program(random.Random(SEED * 10**6 + number)))
            branch, sibling = root.fork(), root.fork()
            result, after = await branch.run(code), await branch.fork().run("1 + 1")
            beside = await sibling.run("x + 1")
            branch.close()
            sibling.close()
            said = f"{result.output}{result.value}{result.error}{after}"
            if canaries.secret in said or beside.value != "42" or result.seconds > LIMITS.wall_seconds + 1:
                wrong.append((number, result, after, beside))

    await asyncio.gather(*map(one, range(PROGRAMS)))
    return wrong


def test_random_programs_get_nothing_and_hurt_nobody(tmp_path):
    need_bubblewrap()
    canaries = Canaries(tmp_path)
    try:
        with BubblewrapSandbox(LIMITS, concurrency=AT_ONCE, packages=(), preload=()) as sandbox:
            assert asyncio.run(_all(sandbox, canaries)) == []
            assert sandbox.describe()["restarts"] == 0
        assert canaries.harm() == []
    finally:
        canaries.close()


def test_the_programs_are_programs():
    programs = {program(random.Random(number)) for number in range(50)}
    assert len(programs) == 50
    for code in programs:
        compile(code.replace("@PORT@", "1").replace("@PORT6@", "1").replace("@VICTIM@", "1"), "fuzz", "exec")
