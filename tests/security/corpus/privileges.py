"""Rights, namespaces, shared memory, and the kernel's less travelled doors."""

from __future__ import annotations

from . import ENDS, Program

ENDS_OR_DIES = ENDS | {"crashed"}


def system_call(name: str, number: int, *arguments: str, control: bool = False) -> Program:
    """The system call must fail."""
    code = (
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nlibc.syscall.restype = ctypes.c_long\n"
        f"result = libc.syscall({', '.join([str(number), *arguments])})\nprint('ESCAPED' if result >= 0 else 'no')"
    )
    return Program(name, code, ENDS_OR_DIES, control)


PROGRAMS = [
    system_call("become root", 105, "0"),
    system_call("become root for good", 117, "0", "0", "0"),
    system_call("join root's groups", 116, "1", "(ctypes.c_int * 1)(0)"),
    system_call(
        "take capabilities", 126, "(ctypes.c_uint32 * 2)(0x20080522, 0)", "(ctypes.c_uint32 * 6)(*[2**32 - 1] * 6)"
    ),
    system_call("new user namespace", 272, "0x10000000"),
    system_call("new mount namespace", 272, "0x00020000"),
    system_call("new network namespace", 272, "0x40000000"),
    system_call("enter another namespace", 308, "0", "0"),
    system_call("mount", 165, "b'none'", "b'/dev'", "b'tmpfs'", "0", "0"),
    system_call("unmount", 166, "b'/usr/lib'", "2"),
    system_call("remount writable", 165, "b'none'", "b'/'", "0", "0x1020", "0"),
    system_call("open a file system", 430, "b'tmpfs'", "0"),
    system_call("clone a mount", 428, "-100", "b'/'", "1"),
    system_call("change the root", 161, "b'/runs'"),
    system_call("pivot the root", 155, "b'/runs'", "b'/runs'"),
    system_call("open by handle", 304, "-100", "bytes(128)", "0"),
    system_call(
        "name a handle",
        303,
        "-100",
        "b'/'",
        "ctypes.create_string_buffer(bytes([120, 0, 0, 0]), 136)",
        "ctypes.byref(ctypes.c_int())",
        "0",
        control=True,
    ),
    system_call("load a kernel module", 175, "b''", "0", "b''"),
    system_call("load another kernel", 246, "0", "0", "0", "0"),
    system_call("reboot", 169, "0", "0", "0", "0"),
    system_call("rename the machine", 170, "b'mine'", "4"),
    system_call("set the clock", 227, "0", "(ctypes.c_long * 2)(1, 1)"),
    system_call("swap", 167, "b'/dev/null'", "0"),
    system_call("use ports", 172, "3"),
    system_call("read the kernel's messages", 103, "10", "0", "0", control=True),
    system_call("load a BPF program", 321, "5", "bytes(128)", "128"),
    system_call("make a BPF map", 321, "0", "(ctypes.c_uint32 * 16)(2, 4, 4, 1)", "64", control=True),
    system_call("measure performance", 298, "bytes(128)", "0", "-1", "-1", "0"),
    system_call("set up io_uring", 425, "4", "ctypes.create_string_buffer(256)"),
    system_call("handle page faults", 323, "1"),
    system_call("add a key", 248, "b'user'", "b'x'", "b'x'", "1", "-2"),
    system_call("read its keyring", 250, "0", "-3", "0"),
    system_call("replace the filter", 317, "1", "0", "0"),
    system_call("see what filters can do", 317, "2", "0", "ctypes.byref(ctypes.c_uint32(0x7fff0000))", control=True),
    system_call("change its personality", 135, "0x0040000", control=True),
    system_call("shared memory", 29, "0", "4096", "0o1600"),
    system_call("a message queue", 68, "0", "0o1600"),
    system_call("a semaphore", 64, "0", "1", "0o1600"),
    system_call("a POSIX message queue", 240, "b'x'", "0o102", "0o600", "0"),
    system_call("memory without a name", 319, "b'x'", "0", control=True),
    system_call("secret memory", 447, "0"),
    system_call("lock memory", 149, "ctypes.create_string_buffer(4096)", "4096", control=True),
    system_call("watch the file system", 300, "0", "0"),
    system_call("raise its limits", 302, "0", "7", "(ctypes.c_ulong * 2)(4096, 4096)", "0"),
    system_call("raise a limit the old way", 160, "1", "(ctypes.c_ulong * 2)(2**63 - 1, 2**63 - 1)"),
    system_call("limit its parent", 302, "libc.getppid()", "0", "0", "(ctypes.c_ulong * 2)()"),
    system_call("be read by others", 157, "4", "1", "0", "0", "0", control=True),
    system_call("change its own memory map", 157, "35", "1", "4096", "0", "0"),
    system_call("account for processes", 163, "b'/dev/null'"),
    system_call("a system call from the future", 900),
    system_call("a system call of another ABI", "0x40000000 + 41", "2", "1", "0"),
    Program(
        "memory that forks would share",
        "import mmap\nmmap.mmap(-1, 4096)\nprint('ESCAPED')",
        ENDS,
        True,
    ),
    Program(
        "raise its limits by resource",
        "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (300, 300))\nprint('ESCAPED')",
    ),
    Program(
        "shared memory by multiprocessing",
        "from multiprocessing import shared_memory as s\nm = s.SharedMemory(create=True, size=99)\nm.unlink()\nprint('ESCAPED')",
        ENDS,
        True,
    ),
]
