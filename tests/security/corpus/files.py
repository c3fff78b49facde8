"""Reading and writing what is not the program's own."""

from __future__ import annotations

from . import ENDS, Program

FILES = ENDS | {"files", "timeout"}  # a slow disk may meet the time limit first


def reads(name: str, code: str, control: bool = True) -> Program:
    """`data` must not hold the canary's secret."""
    return Program(name, f"data = ''\n{code}\nprint('ESCAPED' if '@SECRET@' in str(data) else 'no')", ENDS, control)


def writes(name: str, code: str, control: bool = True) -> Program:
    """The code must raise."""
    return Program(name, f"{code}\nprint('ESCAPED')", FILES, control)


PROGRAMS = [
    reads("read by open", "data = open('@SECRET_FILE@').read()"),
    reads("read by os.open", "import os\ndata = os.read(os.open('@SECRET_FILE@', os.O_RDONLY), 999)"),
    reads("read by pathlib", "import pathlib\ndata = pathlib.Path('@SECRET_FILE@').read_text()"),
    reads("read through a symlink", "import os\nos.symlink('@SECRET_FILE@', 'link')\ndata = open('link').read()"),
    reads("read through a symlink to /", "import os\nos.symlink('/', 'root')\ndata = open('root@SECRET_FILE@').read()"),
    reads("read by going up", "data = open('../' * 30 + '@SECRET_FILE@'[1:]).read()"),
    reads("read by linecache", "import linecache\ndata = linecache.getlines('@SECRET_FILE@')"),
    reads("read by fileinput", "import fileinput\ndata = list(fileinput.input('@SECRET_FILE@'))"),
    reads(
        "read by mmap",
        "import mmap\nf = open('@SECRET_FILE@')\nwith mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as m: data = m[:].decode()",
    ),
    reads(
        "read by a hard link",
        "import os\nos.link('@SECRET_FILE@', '@SECRET_FILE@.2')\ndata = open('@SECRET_FILE@.2').read()",
    ),
    reads("read by copying", "import shutil\nshutil.copyfile('@SECRET_FILE@', 'copy')\ndata = open('copy').read()"),
    reads(
        "read by libc",
        "import ctypes\nlibc = ctypes.CDLL(None)\nfd = libc.open(b'@SECRET_FILE@', 0)\n"
        "buffer = ctypes.create_string_buffer(999)\nlibc.read(fd, buffer, 999)\ndata = buffer.value.decode()",
    ),
    reads(
        "read by openat2",
        "import ctypes, struct\nlibc = ctypes.CDLL(None)\nhow = ctypes.create_string_buffer(struct.pack('QQQ', 0, 0, 0), 24)\n"
        "fd = libc.syscall(437, -100, b'@SECRET_FILE@', how, 24)\n"
        "buffer = ctypes.create_string_buffer(999)\nlibc.read(fd, buffer, 999)\ndata = buffer.value.decode()",
    ),
    reads("read the environment", "import os\ndata = dict(os.environ)"),
    reads("read the environment from /proc", "data = open('/proc/self/environ').read()"),
    reads("read through another process's root", "data = open('/proc/@VICTIM@/root@SECRET_FILE@').read()"),
    reads("read through its own root", "data = open('/proc/self/root@SECRET_FILE@').read()"),
    reads("read through /proc/1", "data = open('/proc/1/root@SECRET_FILE@').read()", control=False),
    reads(
        "search the whole file system",
        "import os\nfor folder, _, names in os.walk('@SECRET_PARENT@'):\n for name in names:\n"
        "  if name == '@SECRET_NAME@': data = open(os.path.join(folder, name)).read()",
    ),
    reads(
        "read what was left open",
        "import os\nfor fd in range(3, 300):\n try: data += os.pread(fd, 999, 0).decode()\n except OSError: pass",
        control=False,
    ),
    Program(
        "use what was left open",
        "import os\nfound = []\nfor fd in range(3, 300):\n try: found.append(os.fstat(fd))\n except OSError: pass\n"
        "print('ESCAPED' if found else 'no')",
    ),
    Program("read /etc/passwd", "print('ESCAPED' if open('/etc/passwd').read() else 'no')", control=True),
    Program("read /etc/hosts", "print('ESCAPED' if open('/etc/hosts').read() else 'no')", control=True),
    Program(
        "list /home and /root", "import os\nprint('ESCAPED' if os.listdir('/home') is not None else '')", control=True
    ),
    Program("list processes", "import os\nos.listdir('/proc')\nprint('ESCAPED')", control=True),
    Program("read its memory map", "open('/proc/self/maps').read()\nprint('ESCAPED')", control=True),
    Program("write its own memory", "open('/proc/self/mem', 'r+b')\nprint('ESCAPED')", control=True),
    Program("read the kernel's log", "open('/dev/kmsg').read(1)\nprint('ESCAPED')"),
    Program("read physical memory", "open('/dev/mem', 'rb').read(1)\nprint('ESCAPED')"),
    Program("look into /sys", "import os\nprint('ESCAPED' if os.listdir('/sys') else '')", control=True),
    Program("open a terminal", "import os\nos.open('/dev/ptmx', os.O_RDWR)\nprint('ESCAPED')", control=True),
    Program("import the host's packages", "import pytest\nprint('ESCAPED')", control=True),
    Program("import lapha itself", "import lapha\nprint('ESCAPED')", control=True),
    Program(
        "see more than the jail's folders",
        "import os\nallowed = {'usr', 'lib', 'lib64', 'dev', 'lapha', 'box', 'etc'} | {'@PREFIX@'.split('/')[1]}\n"
        "print('ESCAPED' if set(os.listdir('/')) - allowed else 'no')",
        control=True,
    ),
    Program(
        "find a folder to write in but its own",
        "import os\nmade = []\nfor folder, _, _ in os.walk('/'):\n if folder.startswith(os.getcwd()): continue\n"
        " try: os.close(os.open(os.path.join(folder, 'x@NONCE@'), os.O_CREAT | os.O_WRONLY)); made.append(folder)\n except OSError: pass\n"
        "print('ESCAPED' if made else 'no')",
        ENDS | {"cpu", "timeout"},
    ),
    Program(
        "find another's files in its folder",
        "import os\nprint('ESCAPED' if os.listdir('.') or os.listdir('/box') else 'no')",
    ),
    Program(
        "make a folder beside its own",
        "import os\nmade = 0\nfor place in ('/box/..', '/', '/box/../dev'):\n try: os.mkdir(f'{place}/mine'); made += 1\n except OSError: pass\n"
        "print('ESCAPED' if made else 'no')",
    ),
    Program(
        "give a file other rights",
        "import os\nopen('f', 'w').close()\nos.chmod('f', 0o777)\nprint('ESCAPED' if os.stat('f').st_mode & 0o777 == 0o777 else '')",
    ),
    Program(
        "mount over its own folder",
        "import ctypes\nr = ctypes.CDLL(None).mount(b'tmpfs', b'/box', b'tmpfs', 14, b'size=99m')\nprint('ESCAPED' if r == 0 else 'no')",
    ),
    Program(
        "leave its namespaces",
        "import ctypes\nl = ctypes.CDLL(None)\nprint('ESCAPED' if l.unshare(0x08020000) == 0 or l.setns(40, 0x08020000) == 0 or l.setns(0, 0) == 0 else 'no')",
    ),
    Program(
        "run a program of its own",
        "import ctypes, os\nopen('x', 'w').write('#!/bin/sh')\nprint('ESCAPED' if os.access('x', os.X_OK) else 'no')",
    ),
    writes("write outside", "open('@OUTSIDE@/escaped', 'w').write('x')"),
    writes("write to /tmp", "open('/tmp/lapha-escaped-@NONCE@', 'w').write('x')"),
    writes("write to /dev/shm", "open('/dev/shm/lapha-escaped-@NONCE@', 'w').write('x')"),
    writes("write to /", "open('/escaped', 'w').write('x')", control=False),
    writes("write to /usr", "open('/usr/lib/escaped', 'w').write('x')", control=False),
    writes("change the standard library", "import json\nopen(json.__file__, 'a').write('')", control=False),
    writes(
        "change the jail's own program", "open('/lapha/code/lapha/sandbox/jail/guest.py', 'a').write('')", control=False
    ),
    writes("make a folder outside", "import os\nos.mkdir('@OUTSIDE@/folder')"),
    writes("rename outside", "import os\nopen('@OUTSIDE@/a', 'w')\nos.rename('@OUTSIDE@/a', '@OUTSIDE@/b')"),
    writes(
        "write through a symlink", "import os\nos.symlink('@OUTSIDE@', 'out')\nopen('out/escaped2', 'w').write('x')"
    ),
    writes("delete the standard library", "import json, os\nos.unlink(json.__file__)", control=False),
    writes("truncate the standard library", "import json, os\nos.truncate(json.__file__, 0)", control=False),
    writes(
        "make the standard library writable",
        "import json, os\nos.chmod(json.__file__, 0o666)\nos.open(json.__file__, os.O_WRONLY)",
        control=False,
    ),
    writes(
        "change the standard library through a hard link",
        "import json, os\nos.link(json.__file__, 'mine')\nopen('mine', 'a')",
        control=False,
    ),
    writes("make a device", "import os, stat\nos.mknod('disk', 0o600 | stat.S_IFBLK, os.makedev(8, 0))", control=False),
    writes("make a pipe file", "import os\nos.mkfifo('pipe')"),
    writes("lock a file of the host", "import fcntl, json\nfcntl.flock(open(json.__file__), fcntl.LOCK_EX)"),
    writes("watch files of the host", "import ctypes\nassert ctypes.CDLL(None).inotify_init() >= 0"),
    writes("more bytes than the quota", "open('big', 'wb').write(bytes(3 << 20))"),
    writes("many files, more bytes than the quota", "for i in range(40): open(f'f{i}', 'wb').write(bytes(1 << 17))"),
    writes("a sparse file", "f = open('sparse', 'wb')\nf.seek(1 << 40)\nf.write(b'x')\nf.close()"),
    Program("very many files", "for i in range(3000): open(f'f{i}', 'w').close()", FILES),
    Program("files for ever", "n = 0\nwhile True: open(f'f{n}', 'w').close(); n += 1", frozenset({"files", "timeout"})),
    Program(
        "folders for ever", "import os\nn = 0\nwhile True: os.mkdir(f'f{n}'); n += 1", frozenset({"files", "timeout"})
    ),
    Program(
        "deep folders for ever",
        "import os\nwhile True: os.mkdir('d'); os.chdir('d')",
        frozenset({"files", "cpu", "timeout"}),
    ),
    Program("very deep folders", "import os\nfor i in range(600): os.mkdir('d'); os.chdir('d')", FILES),
    Program("folders that cannot be entered", "import os\nos.makedirs('a/b')\nos.open('a/c', os.O_CREAT, 0)", FILES),
    Program("names that are no text", "import os\nopen(b'\\xff\\xfe\\n', 'w').close()", FILES),
    Program("delete its own folder", "import os\nos.rmdir(os.getcwd())", FILES),
    Program("a file that stays open", "f = open('open', 'w')\nf.write('x' * 99)\nf.flush()", FILES),
    Program(
        "a deleted file that stays open",
        "f = open('gone', 'w+')\nimport os\nos.unlink('gone')\nf.write('x' * 9999)",
        FILES,
    ),
    Program(
        "a deleted file that stays mapped",
        "import ctypes, os\nf = os.open('gone', os.O_RDWR | os.O_CREAT)\nos.write(f, bytes(1 << 19))\n"
        "libc = ctypes.CDLL(None)\nlibc.mmap.restype = ctypes.c_void_p\n"
        "assert libc.mmap(None, 1 << 19, 1, 2, f, 0) not in (None, 2**64 - 1)\nos.unlink('gone')",
        FILES,
    ),
    Program(
        "links in a circle", "import os\nos.symlink('b', 'a')\nos.symlink('a', 'b')\nos.symlink('.', 'here')", FILES
    ),
]
