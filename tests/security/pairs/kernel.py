"""Memory, queues, locks, names and numbers that the kernel keeps for everybody."""

from __future__ import annotations

from . import Pair

_KEY = "key = int('@NONCE@'[-7:], 16)\n"
_MAP = "m = libc.mmap\nm.restype = ctypes.c_void_p\n"
_MESSAGE = "_fields_ = [('kind', ctypes.c_long), ('text', ctypes.c_char * 32)]"
_LIBRARY_PAGE = (
    "import json\nf = os.open(library(), os.O_RDONLY)\n"
    + _MAP
    + "page = m(None, 4096, 1, 2, f, 0)\nos.close(f)\nword = ctypes.c_uint32.from_address(page).value\n"
)

PAIRS = [
    Pair("shared memory, System V", _KEY + "i = libc.shmget(key, 4096, 0o1600)\nlibc.shmat.restype = ctypes.c_void_p\na = libc.shmat(i, None, 0)\nctypes.memmove(a, b'@WORD@', 8)\nhold()\nlibc.shmctl(i, 0, None)",
         _KEY + "libc.shmat.restype = ctypes.c_void_p\ndef got():\n i = libc.shmget(key, 4096, 0o600)\n return i >= 0 and ctypes.string_at(libc.shmat(i, None, 0), 8) == b'@WORD@'[:8]\nuntil(got)"),
    Pair("semaphore, System V", _KEY + "i = libc.semget(key, 1, 0o1600)\nlibc.semctl(i, 0, 16, 7)\nhold()\nlibc.semctl(i, 0, 0)",
         _KEY + "def got():\n i = libc.semget(key, 1, 0o600)\n return i >= 0 and libc.semctl(i, 0, 12) == 7\nuntil(got)"),
    Pair("message queue, System V", _KEY + f"class M(ctypes.Structure): {_MESSAGE}\ni = libc.msgget(key, 0o1600)\nlibc.msgsnd(i, ctypes.byref(M(1, b'@WORD@')), 32, 0)\nhold()\nlibc.msgctl(i, 0, None)",
         _KEY + f"class M(ctypes.Structure): {_MESSAGE}\nm = M()\ndef got():\n i = libc.msgget(key, 0o600)\n return i >= 0 and libc.msgrcv(i, ctypes.byref(m), 32, 0, 0o4000) > 0 and m.text == b'@WORD@'\nuntil(got)"),
    Pair("shared memory, POSIX", "from multiprocessing import shared_memory as s\nm = s.SharedMemory('@NONCE@m', True, 64)\nm.buf[:8] = b'@WORD@'[:8]\nhold()\nm.unlink()",
         "f = lambda: open('/dev/shm/@NONCE@m', 'rb').read(8) == b'@WORD@'[:8]\nuntil(f)"),
    Pair("message queue, POSIX", "q = call(240, b'@NONCE@q', os.O_CREAT | os.O_RDWR, 0o600, None)\ncall(242, q, b'@WORD@', 6, 0, None)\nhold()\ncall(241, b'@NONCE@q')",
         "b = ctypes.create_string_buffer(9000)\nuntil(lambda: call(243, call(240, b'@NONCE@q', os.O_RDONLY | os.O_NONBLOCK, 0, None), b, 9000, None, None) == 6)"),
    Pair("semaphore, POSIX", "libc.sem_open.restype = ctypes.c_void_p\ns = libc.sem_open(b'/@NONCE@', os.O_CREAT, 0o600, 3)\nhold()\nlibc.sem_unlink(b'/@NONCE@')",
         "libc.sem_open.restype = ctypes.c_void_p\nuntil(lambda: libc.sem_open(b'/@NONCE@', 0) not in (None, 0))"),
    Pair("memory shared by a fork", "shared[:8] = b'@WORD@'[:8]\nhold()", "until(lambda: shared[:8] == b'@WORD@'[:8])", before="import mmap\nshared = mmap.mmap(-1, 4096)"),
    Pair("memory shared by a fork, of a device", "shared[:8] = b'@WORD@'[:8]\nhold()", "until(lambda: shared[:8] == b'@WORD@'[:8])",
         before="import mmap, os\nshared = mmap.mmap(os.open('/dev/zero', os.O_RDWR), 4096, mmap.MAP_SHARED)", control=False),
    Pair("memory of a fork, private", "ctypes.memmove(there, b'@WORD@', 8)\nhold()", "until(lambda: ctypes.string_at(there, 8) == b'@WORD@'[:8])", control=False,
         before="import ctypes\nroom = ctypes.create_string_buffer(64)\nthere = ctypes.addressof(room)"),
    Pair("memory without a name", "f = os.memfd_create('@NONCE@')\nos.write(f, b'@WORD@')\nhold()",
         "until(lambda: some(lambda pid: any('@NONCE@' in os.readlink(f'/proc/{pid}/fd/{n}') for n in os.listdir(f'/proc/{pid}/fd'))))"),
    Pair("memory without a name, from before", "os.pwrite(shared, b'@WORD@', 0)\nhold()", "until(lambda: os.pread(shared, 99, 0) == b'@WORD@')", before="import os\nshared = os.memfd_create('x')"),
    Pair("futex on a library's page", _LIBRARY_PAGE + "hold(lambda: libc.syscall(202, ctypes.c_void_p(page), 1, 99, None, None, 0))",
         _LIBRARY_PAGE + "t = struct.pack('qq', 0, 20_000_000)\nuntil(lambda: libc.syscall(202, ctypes.c_void_p(page), 0, ctypes.c_uint32(word), t, None, 0) == 0)"),
    Pair("futex on a library's page, with a mask", _LIBRARY_PAGE + "hold(lambda: libc.syscall(202, ctypes.c_void_p(page), 10, 99, None, None, 4))",
         _LIBRARY_PAGE + "until(lambda: libc.syscall(202, ctypes.c_void_p(page), 9, ctypes.c_uint32(word), None, None, 4) == 0 if libc.syscall(202, ctypes.c_void_p(page), 9, ctypes.c_uint32(word ^ 1), None, None, 4) < 0 and ctypes.get_errno() == errno.EAGAIN else False)"),
    Pair("futex, several at once", _LIBRARY_PAGE + "hold(lambda: libc.syscall(202, ctypes.c_void_p(page), 1, 99, None, None, 0))",
         _LIBRARY_PAGE + "w = struct.pack('QQII', word, page, 2, 0)\nt = struct.pack('qq', 2**40, 0)\nuntil(lambda: libc.syscall(449, w, 1, 0, t, 1) == 0)"),
    Pair("number of waiters for a futex", _LIBRARY_PAGE + "t = struct.pack('qq', 0, 50_000_000)\nhold(lambda: libc.syscall(202, ctypes.c_void_p(page), 0, ctypes.c_uint32(word), t, None, 0))",
         _LIBRARY_PAGE + "until(lambda: libc.syscall(202, ctypes.c_void_p(page), 1, 1, None, None, 0) > 0)"),
    Pair("key of the user", "hold(lambda: call(248, b'user', b'@NONCE@', b'@WORD@', 6, -4))",
         "b = ctypes.create_string_buffer(64)\nuntil(lambda: call(250, 11, call(250, 10, -4, b'user', b'@NONCE@', 0), b, 64) > 0)", control=False),
    Pair("key ring with a name", "hold(lambda: call(250, 1, b'@NONCE@'))", "until(lambda: call(250, 1, b'@NONCE@') >= 0)", control=False),
    Pair("name of the machine", "hold(lambda: libc.sethostname(b'@NONCE@'[:12], 12))", "until(lambda: os.uname().nodename == '@NONCE@'[:12])", control=False),
    Pair("mount", "hold(lambda: libc.mount(b'none', b'/dev', b'tmpfs', 0, b''))", "had = os.listdir('/dev')\nuntil(lambda: os.listdir('/dev') != had)", control=False),
    Pair("limit of open pipes", "p = []\ntry:\n for _ in range(20000): p.append(os.pipe()); fcntl.fcntl(p[-1][0], 1031, 1 << 20)\nexcept OSError: pass\nhold()",
         "until(lambda: fcntl.fcntl(os.pipe()[0], 1032) < 65536)", control=False),
    Pair("free memory of the machine", "x = b'x' * (90 << 20)\nhold()", "b = ctypes.create_string_buffer(200)\nuntil(lambda: libc.sysinfo(b) == 0)"),
    Pair("load of the machine", "while time.monotonic() < END: pass", "until(lambda: os.getloadavg()[0] >= 0)"),
    Pair("processors' work in /proc", "while time.monotonic() < END: pass", "until(lambda: open('/proc/stat').read())"),
    Pair("messages of the kernel", "open('/dev/kmsg', 'w').write('@WORD@')\nhold()", "until(lambda: '@WORD@' in open('/dev/kmsg').read(99))", control=False),
    Pair("ring of requests", "i = call(425, 4, ctypes.create_string_buffer(256))\nhold()", "until(lambda: call(425, 4, ctypes.create_string_buffer(256)) >= 0)", control=False),
    Pair("map of the kernel's programs", "f = call(321, 0, struct.pack('IIII', 2, 4, 8, 1) + bytes(48), 64)\nhold()", "until(lambda: call(321, 0, struct.pack('IIII', 2, 4, 8, 1) + bytes(48), 64) >= 0)", control=False),
    Pair("page faults of another", "hold()", "until(lambda: call(323, 1) >= 0)", control=False),
    Pair("merging of equal pages", "m = mmap.mmap(-1, 1 << 20, flags=34)\nm.write(b'@WORD@' * 9999)\nhold()", "m = mmap.mmap(-1, 1 << 20, flags=34)\nuntil(lambda: m.madvise(12) is None)", control=False),
    Pair("driving shared pages out", "hold()", _LIBRARY_PAGE + "until(lambda: libc.madvise(ctypes.c_void_p(page), 4096, 21) == 0)"),
    Pair("timer that signals another", "hold()", "e = struct.pack('QiiQQ', 0, 10, 4, 0, 0) + bytes(64)\nt = ctypes.c_int()\nuntil(lambda: call(222, 1, e, ctypes.byref(t)) == 0)", control=False),
    Pair("space of a process of another", "hold()", "until(lambda: call(440, 0, None, 0, 3, 0) >= 0)", control=False),
    Pair("result of another's", "hold()", "b = ctypes.create_string_buffer(9)\nuntil(lambda: call(6810, None, 0, b, 9) >= 0 and '@WORD@' in str(b.raw))", control=False),
]  # fmt: skip
