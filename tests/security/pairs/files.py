"""Files, folders, what is remembered of them, and what is shared with an open file."""

from __future__ import annotations

from . import Pair


def place(channel: str, path: str, control: bool = True) -> Pair:
    """`left` writes a file where `right` looks for it."""
    return Pair(
        channel,
        f"path = {path}\nopen(path, 'w').write('@WORD@')\nhold()\nos.unlink(path)",
        f"path = {path}\nuntil(lambda: open(path).read() == '@WORD@')",
        control,
    )


def shared(channel: str, left: str, right: str, control: bool = True) -> Pair:
    """A descriptor that both have from one session."""
    return Pair(channel, left, right, control, before="import os\nshared = 0")


_FLAGS = "def flags(): return fcntl.fcntl(shared, fcntl.F_GETFL)\nhad = flags()\n"

PAIRS = [
    place("file in /tmp", "'/tmp/@NONCE@'"),
    place("file in /var/tmp", "'/var/tmp/@NONCE@'"),
    place("file in /dev/shm", "'/dev/shm/@NONCE@'"),
    place("file in the home folder", "os.path.expanduser('~/@NONCE@')"),
    place("file in the root folder", "'/@NONCE@'", control=False),
    place("file beside the run's folder", "os.path.join(os.path.dirname(os.getcwd()), '@NONCE@')", control=False),
    place("file in the run's folder of the same name", "os.path.abspath('@NONCE@')", control=False),
    place("file beside the library", "os.path.join(os.path.dirname(library()), '@NONCE@')", control=False),
    Pair(
        "file in the folder that both know from before",
        "open(os.path.join(known, '@NONCE@'), 'w').write('@WORD@')\nhold()",
        "until(lambda: open(os.path.join(known, '@NONCE@')).read() == '@WORD@')",
        before="import os\nknown = os.getcwd()",
    ),
    Pair(
        "file that both have from before",
        "open('note', 'w').write('@WORD@')\nhold()",
        "until(lambda: open('note').read() == '@WORD@')",
        before="open('note', 'w').write('nothing')",
    ),
    Pair(
        "file that is mapped from before",
        "f = open('note', 'r+b')\nf.write(b'@WORD@')\nf.flush()\nhold()",
        "until(lambda: ctypes.string_at(seen, 8) == b'@WORD@'[:8])",
        before="import ctypes, os\nopen('note', 'wb').write(bytes(4096))\nfd = os.open('note', os.O_RDWR)\nm = ctypes.CDLL(None).mmap\n"
        "m.restype = ctypes.c_void_p\nseen = m(None, 4096, 1, 2, fd, 0)\nos.close(fd)",
    ),
    Pair("pipe file", "os.mkfifo('/tmp/@NONCE@p')\nf = os.open('/tmp/@NONCE@p', os.O_RDWR)\nos.write(f, b'@WORD@')\nhold()",
         "def got():\n f = os.open('/tmp/@NONCE@p', os.O_RDONLY | os.O_NONBLOCK)\n return os.read(f, 99) == b'@WORD@'\nuntil(got)"),
    Pair("pipe file in the working directory", "os.mkfifo('@NONCE@p')\nf = os.open('@NONCE@p', os.O_RDWR)\nos.write(f, b'@WORD@')\nhold()",
         "until(lambda: os.read(os.open('@NONCE@p', os.O_RDONLY | os.O_NONBLOCK), 99) == b'@WORD@')", control=False),
    Pair("terminal", "f = os.open('/dev/ptmx', os.O_RDWR | os.O_NOCTTY)\nfcntl.ioctl(f, 0x40045431, struct.pack('i', 0))\nhold(lambda: os.write(f, b'@WORD@\\n'))",
         "def got():\n return any(os.read(os.open(f'/dev/pts/{n}', os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY), 999) for n in range(20))\nuntil(got)", control=False),
    Pair("lock by flock", "f = os.open(library(), os.O_RDONLY)\nfcntl.flock(f, fcntl.LOCK_EX)\nhold()",
         "f = os.open(library(), os.O_RDONLY)\ndef got():\n try: fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)\n except BlockingIOError: return True\n fcntl.flock(f, fcntl.LOCK_UN)\nuntil(got)"),
    Pair("lock by fcntl", "f = os.open(library(), os.O_RDONLY)\nfcntl.fcntl(f, 6, struct.pack('hhqqi', 0, 0, 10, 3, 0))\nhold()",
         "f = os.open(library(), os.O_RDONLY)\ndef got():\n kind = struct.unpack('hhqqi', fcntl.fcntl(f, 5, struct.pack('hhqqi', 1, 0, 10, 3, 0)))[0]\n return kind == 0\nuntil(got)"),
    Pair("lock of the open file", "f = os.open(library(), os.O_RDONLY)\nfcntl.fcntl(f, 37, struct.pack('hhqqi', 0, 0, 10, 3, 0))\nhold()",
         "f = os.open(library(), os.O_RDONLY)\nuntil(lambda: struct.unpack('hhqqi', fcntl.fcntl(f, 36, struct.pack('hhqqi', 1, 0, 10, 3, 0)))[0] == 0)"),
    Pair("lease", "f = os.open(library(), os.O_RDONLY)\nfcntl.fcntl(f, 1024, 0)\nhold()",
         "f = os.open(library(), os.O_RDONLY)\ndef got():\n try: fcntl.fcntl(f, 1024, 1)\n except BlockingIOError: return True\n except OSError: return False\n fcntl.fcntl(f, 1024, 2)\nuntil(got)", control=False),
    Pair("extended attribute", "hold(lambda: os.setxattr('/dev/null', 'user.x', b'@WORD@'))", "until(lambda: os.getxattr('/dev/null', 'user.x') == b'@WORD@')", control=False),
    Pair("time of a device", "hold(lambda: os.utime('/dev/full', (12345, 12345)))", "until(lambda: os.stat('/dev/full').st_mtime == 12345)", control=False),
    Pair("rights of a device", "had = os.stat('/dev/full').st_mode & 0o777\nos.chmod('/dev/full', had ^ 0o100)\nhold()\nos.chmod('/dev/full', had)",
         "had = os.stat('/dev/full').st_mode\nuntil(lambda: os.stat('/dev/full').st_mode != had)", control=False),
    Pair("time of a library file's last reading", "hold(lambda: open(library()).read())", "had = os.stat(library()).st_atime_ns\nuntil(lambda: os.stat(library()).st_atime_ns != had)", control=False),
    Pair("space left on a file system", "open('big', 'wb').write(bytes(900_000))\nhold()",
         "places = ['/', '/dev', '/dev/shm', '/tmp'] + [f'/runs/{n}' for n in range(20)] + [os.path.dirname(os.getcwd())]\n"
         "def free():\n found = []\n for place in places:\n  try: found.append(os.statvfs(place).f_bfree)\n  except OSError: pass\n return found\n"
         "had = free()\nuntil(lambda: free() != had)", control=False),
    Pair("events of files", "hold(lambda: open(library()).read(1))",
         "f = libc.inotify_init1(os.O_NONBLOCK)\nlibc.inotify_add_watch(f, library().encode(), 0x20)\nuntil(lambda: f >= 0 and os.read(f, 99))"),
    Pair("signals about a folder", "hold(lambda: open(library()).read(1))",
         "import signal\nhit = []\nsignal.signal(signal.SIGIO, lambda *a: hit.append(1))\nf = os.open(os.path.dirname(library()), os.O_RDONLY)\n"
         "fcntl.fcntl(f, 1026, 0x80000001)\nuntil(lambda: hit)"),
    Pair("events of the whole machine", "hold(lambda: open(library()).read(1))", "f = call(300, 2, 0)\ncall(301, f, 1, 1, -100, library().encode())\nuntil(lambda: os.read(f, 99))", control=False),
    Pair("pages kept in memory, by mincore", "f = open(library())\nhold(lambda: os.posix_fadvise(f.fileno(), 0, 0, 4))",
         "f = open(library(), 'rb')\nm = libc.mmap\nm.restype = ctypes.c_void_p\na = m(None, 4096, 1, 2, f.fileno(), 0)\nv = ctypes.create_string_buffer(1)\n"
         "until(lambda: libc.mincore(ctypes.c_void_p(a), 4096, v) == 0)"),
    Pair("pages kept in memory, by preadv2", "hold(lambda: open(library()).read())",
         "f = os.open(library(), os.O_RDONLY)\nuntil(lambda: os.preadv(f, [bytearray(9)], 0, os.RWF_NOWAIT) == 9)"),
    shared("flags of an open file", _FLAGS + "fcntl.fcntl(shared, fcntl.F_SETFL, had ^ os.O_APPEND)\nhold()", _FLAGS + "until(lambda: flags() != had)", control=False),
    shared("blocking of an open file", "hold(lambda: fcntl.ioctl(shared, 0x5421, struct.pack('i', 1)))", _FLAGS + "until(lambda: flags() != had)", control=False),
    Pair("offset of an open file", "os.lseek(shared, 77, 0)\nhold()", "until(lambda: os.lseek(shared, 0, 1) == 77)", before="import os\nshared = os.open('/dev/zero', os.O_RDONLY) if 0 else os.open(os.__file__, os.O_RDONLY)"),
    Pair("folder that is open from before", "open('@NONCE@', 'w', opener=lambda p, f: os.open(p, f, dir_fd=folder)).write('@WORD@')\nhold()",
         "until(lambda: os.read(os.open('@NONCE@', os.O_RDONLY, dir_fd=folder), 99) == b'@WORD@')", before="import os\nfolder = os.open('.', os.O_RDONLY)"),
    Pair("working directory from before", "open('@NONCE@', 'w').write('@WORD@')\nhold()", "until(lambda: open('@NONCE@').read() == '@WORD@')", before="import os\nos.chdir('..')", control=False),
]  # fmt: skip
