"""The system call filters, assembled by hand (classic BPF, x86-64): the guests', and the supervisor's own.

Allowed to guests is what CPython, numpy and sympy need for computing, for files and for pipes. What is not listed is answered
ENOSYS, so that libraries fall back to older calls. Some calls that programs try on purpose are answered EPERM, which
reads better; some that only change a file's metadata are answered "done" without being done.
"""

from __future__ import annotations

import errno
import struct

HYPERCALL = 6810
"""Number of the made-up system call by which a process gives its result and waits for a command."""

FORK_FLAGS = 0x01200011
"""`clone` flags of a plain fork: CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | SIGCHLD."""

NR_CLONE = 56

BROKERED = (165, 272, 308)
"""mount, unshare and setns: the supervisor's to allow, one by one (`broker.py`)."""

_ARCH_X86_64 = 0xC000003E
_SIGCHLD = 17

_ALLOW, _NOTIFY, _KILL = 0x7FFF0000, 0x7FC00000, 0x80000000


def _errno(code: int) -> int:
    return 0x00050000 | code


_EPERM, _ENOSYS, _DONE = _errno(errno.EPERM), _errno(errno.ENOSYS), _errno(0)

_CLOCKS = (0, 1, 2, 3, 4, 5, 6, 7, 11)

_ALLOWED = {
    # memory (mmap and madvise are filtered below)
    9: "mmap", 10: "mprotect", 11: "munmap", 12: "brk", 25: "mremap", 26: "msync", 28: "madvise",
    # files
    0: "read", 1: "write", 2: "open", 3: "close", 4: "stat", 5: "fstat", 6: "lstat", 8: "lseek", 16: "ioctl",
    17: "pread64", 18: "pwrite64", 19: "readv", 20: "writev", 21: "access", 32: "dup", 33: "dup2", 40: "sendfile",
    72: "fcntl", 74: "fsync", 75: "fdatasync", 76: "truncate", 77: "ftruncate", 78: "getdents", 79: "getcwd",
    80: "chdir", 81: "fchdir", 82: "rename", 83: "mkdir", 84: "rmdir", 86: "link", 87: "unlink", 88: "symlink",
    89: "readlink", 95: "umask", 217: "getdents64", 257: "openat", 258: "mkdirat", 262: "newfstatat", 263: "unlinkat",
    264: "renameat", 265: "linkat", 266: "symlinkat", 267: "readlinkat", 269: "faccessat", 285: "fallocate",
    292: "dup3", 295: "preadv", 296: "pwritev", 316: "renameat2", 326: "copy_file_range", 332: "statx",
    436: "close_range", 439: "faccessat2",
    # pipes of a process to itself
    7: "poll", 22: "pipe", 23: "select", 213: "epoll_create", 232: "epoll_wait", 233: "epoll_ctl", 270: "pselect6",
    271: "ppoll", 275: "splice", 276: "tee", 281: "epoll_pwait", 290: "eventfd2", 291: "epoll_create1", 293: "pipe2",
    441: "epoll_pwait2",
    # time and signals to oneself
    13: "rt_sigaction", 14: "rt_sigprocmask", 15: "rt_sigreturn", 24: "sched_yield", 34: "pause", 35: "nanosleep",
    36: "getitimer", 96: "gettimeofday", 127: "rt_sigpending", 128: "rt_sigtimedwait", 130: "rt_sigsuspend",
    131: "sigaltstack", 201: "time", 228: "clock_gettime", 229: "clock_getres", 230: "clock_nanosleep",
    # who and where am I; waiting and ending
    39: "getpid", 60: "exit", 63: "uname", 97: "getrlimit", 98: "getrusage", 100: "times", 102: "getuid",
    104: "getgid", 107: "geteuid", 108: "getegid", 110: "getppid", 111: "getpgrp", 115: "getgroups",
    118: "getresuid", 120: "getresgid", 121: "getpgid", 124: "getsid", 140: "getpriority", 143: "sched_getparam",
    145: "sched_getscheduler", 157: "prctl", 158: "arch_prctl", 186: "gettid", 202: "futex", 204: "sched_getaffinity",
    218: "set_tid_address", 231: "exit_group", 273: "set_robust_list", 302: "prlimit64", 309: "getcpu",
    318: "getrandom", 334: "rseq",
}  # fmt: skip

_REFUSED = {
    # other processes: signals, tracing, starting, scheduling, and what the kernel remembers of them
    57: "fork", 58: "vfork", 59: "execve", 62: "kill", 101: "ptrace", 109: "setpgid", 112: "setsid", 129: "rt_sigqueueinfo",
    141: "setpriority", 142: "sched_setparam", 144: "sched_setscheduler", 200: "tkill", 203: "sched_setaffinity",
    234: "tgkill", 251: "ioprio_set", 274: "get_robust_list", 297: "rt_tgsigqueueinfo", 310: "process_vm_readv",
    311: "process_vm_writev", 312: "kcmp", 322: "execveat", 424: "pidfd_send_signal", 434: "pidfd_open",
    438: "pidfd_getfd", 440: "process_madvise",
    # timers, which could run code when nobody asked for it
    37: "alarm", 38: "setitimer", 222: "timer_create",
    # sockets of every kind: they have names, and carry file descriptors
    41: "socket", 42: "connect", 43: "accept", 44: "sendto", 45: "recvfrom", 46: "sendmsg", 47: "recvmsg",
    48: "shutdown", 49: "bind", 50: "listen", 51: "getsockname", 52: "getpeername", 53: "socketpair",
    54: "setsockopt", 55: "getsockopt", 288: "accept4", 299: "recvmmsg", 307: "sendmmsg",
    # memory that others could share, or that no limit counts
    29: "shmget", 30: "shmat", 64: "semget", 68: "msgget", 149: "mlock", 151: "mlockall", 240: "mq_open",
    279: "move_pages", 319: "memfd_create", 323: "userfaultfd", 325: "mlock2", 425: "io_uring_setup", 447: "memfd_secret",
    # the machine: load, free memory, disks, and what others have made it keep in memory
    27: "mincore", 99: "sysinfo", 137: "statfs", 138: "fstatfs", 327: "preadv2", 328: "pwritev2",
    # rights, namespaces, the kernel
    73: "flock", 103: "syslog", 105: "setuid", 106: "setgid", 116: "setgroups", 117: "setresuid", 119: "setresgid",
    126: "capset", 133: "mknod", 135: "personality", 155: "pivot_root", 160: "setrlimit", 161: "chroot", 163: "acct",
    166: "umount2", 167: "swapon", 169: "reboot", 170: "sethostname", 175: "init_module", 248: "add_key",
    250: "keyctl", 253: "inotify_init", 259: "mknodat", 294: "inotify_init1", 298: "perf_event_open",
    300: "fanotify_init", 303: "name_to_handle_at", 304: "open_by_handle_at", 317: "seccomp", 321: "bpf",
    428: "open_tree", 429: "move_mount", 430: "fsopen", 432: "fsmount", 442: "mount_setattr",
}  # fmt: skip

_PRETENDED = {
    90: "chmod", 91: "fchmod", 92: "chown", 93: "fchown", 94: "lchown", 132: "utime", 188: "setxattr", 189: "lsetxattr",
    190: "fsetxattr", 221: "fadvise64", 235: "utimes", 260: "fchownat", 261: "futimesat", 268: "fchmodat",
    280: "utimensat", 452: "fchmodat2",
}  # fmt: skip

_CHILDLESS = {61: "wait4", 247: "waitid"}
"""Answered "no children": a process would else learn when its forks, which are other branches, end."""

# arguments: (system call, argument index, allowed values of its low 32 bits)
_CHOICES = {
    "ioctl": (1, (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)),  # TCGETS TIOCGWINSZ FIONREAD FIONBIO FIO(N)CLEX
    "prctl": (0, (15, 16, 0x53564D41)),  # names of the process and of its memory
    # about oneself: others' numbers would tell of others, or carry what they have stored there
    "getpgid": (0, (0,)),
    "getsid": (0, (0,)),
    "getpriority": (1, (0,)),
    "sched_getparam": (0, (0,)),
    "sched_getscheduler": (0, (0,)),
    "sched_getaffinity": (0, (0,)),
    "getrusage": (0, (0, 1)),
    # clocks of this machine and of oneself: negative ones are the processor time of any process
    "clock_gettime": (0, _CLOCKS),
    "clock_getres": (0, _CLOCKS),
    "clock_nanosleep": (0, _CLOCKS),
    # futexes that are private to the process: others are found by the file that their memory maps, such as the C library
    "futex": (1, tuple(number | 128 for number in (0, 1, 3, 4, 5, 9, 10, 256, 256 + 9))),
    # no merging of equal pages, no driving shared pages out of memory
    "madvise": (2, (0, 1, 2, 3, 4, 8, 14, 15, 16, 17, 25)),
}

_LD_NR, _LD_ARCH = 0, 4


def _arg(index: int, high: bool = False) -> int:
    return 16 + 8 * index + (4 if high else 0)


def _op(code: int, k: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("=HBBI", code, yes, no, k)


def _load(offset: int) -> bytes:
    return _op(0x20, offset)


def _equal(value: int, yes: int = 0, no: int = 0) -> bytes:
    return _op(0x15, value, yes, no)


def _any_bit(mask: int, yes: int = 0, no: int = 0) -> bytes:
    return _op(0x45, mask, yes, no)


def _return(action: int) -> bytes:
    return _op(0x06, action)


def _only_if(number: int, *body: bytes) -> list[bytes]:
    """Run `body`, which ends in a return, for this system call."""
    return [_equal(number, 0, len(body)), *body]


def _filtered(name: str, number: int) -> list[bytes]:
    """The rule of a system call whose arguments matter."""
    if name == "mmap":  # no memory that survives a fork as shared, and no huge pages
        return _only_if(number, _load(_arg(3)), _any_bit(0x01 | 0x40000, 0, 1), _return(_EPERM), _return(_ALLOW))
    if name == "fcntl":  # locks lie on the file, where others would find them; one's own folder needs none
        locks = [_equal(6, 1, 0), _equal(7, 0, 1), _return(_DONE)]
        tests = [_equal(value, 6 - place, 0) for place, value in enumerate((0, 1, 2, 3, 4, 1030))]
        return _only_if(number, _load(_arg(1)), *locks, *tests, _return(_EPERM), _return(_ALLOW))
    if name == "rt_sigaction":  # SIGCHLD stays ignored: nothing may interrupt a waiting process
        return _only_if(number, _load(_arg(0)), _equal(_SIGCHLD, 0, 1), _return(_EPERM), _return(_ALLOW))
    if name == "prlimit64":  # reading one's own limits
        zero = [_load(_arg(0)), _equal(0, 0, 4), _load(_arg(2)), _equal(0, 0, 2), _load(_arg(2, True)), _equal(0, 1, 0)]
        return _only_if(number, *zero, _return(_EPERM), _return(_ALLOW))
    index, values = _CHOICES[name]
    tests = [_equal(value, len(values) - place, 0) for place, value in enumerate(values)]
    return _only_if(number, _load(_arg(index)), *tests, _return(_EPERM), _return(_ALLOW))


def _clone() -> list[bytes]:
    """A plain fork is the supervisor's to allow; threads, namespaces and everything else are refused."""
    same = [_load(_arg(0)), _equal(FORK_FLAGS, 0, 3), _load(_arg(0, True)), _equal(0, 0, 1), _return(_NOTIFY)]
    return _only_if(NR_CLONE, *same, _return(_EPERM))


def branch_program() -> bytes:
    """The guests' filter as an array of ``struct sock_filter``."""
    rules = [
        _load(_LD_ARCH),
        _equal(_ARCH_X86_64, 1, 0),
        _return(_KILL),
        _load(_LD_NR),
        *_only_if(HYPERCALL, _return(_NOTIFY)),
        *_clone(),
    ]
    for number in BROKERED:
        rules += _only_if(number, _return(_NOTIFY))
    for number, name in _ALLOWED.items():
        special = name in ("mmap", "fcntl", "rt_sigaction", "prlimit64") or name in _CHOICES
        rules += _filtered(name, number) if special else _only_if(number, _return(_ALLOW))
    for numbers, action in ((_REFUSED, _EPERM), (_PRETENDED, _DONE), (_CHILDLESS, _errno(errno.ECHILD))):
        for number in numbers:
            rules += _only_if(number, _return(action))
    return b"".join([*rules, _return(_ENOSYS)])


_SUPERVISOR = {
    0: "read", 1: "write", 3: "close", 5: "fstat", 7: "poll", 8: "lseek", 9: "mmap", 10: "mprotect", 11: "munmap",
    12: "brk", 13: "rt_sigaction", 14: "rt_sigprocmask", 15: "rt_sigreturn", 16: "ioctl", 17: "pread64", 18: "pwrite64",
    24: "sched_yield", 25: "mremap", 28: "madvise", 39: "getpid", 44: "sendto", 45: "recvfrom", 46: "sendmsg",
    47: "recvmsg", 48: "shutdown", 89: "readlink", 96: "gettimeofday", 131: "sigaltstack", 186: "gettid", 202: "futex",
    217: "getdents64", 228: "clock_gettime", 230: "clock_nanosleep", 231: "exit_group", 232: "epoll_wait",
    233: "epoll_ctl", 257: "openat", 262: "newfstatat", 267: "readlinkat", 281: "epoll_pwait", 318: "getrandom",
    424: "pidfd_send_signal", 434: "pidfd_open",
}  # fmt: skip
"""What the supervisor needs once the jail runs: its connections, /proc, signals by handle, and nothing else."""

_NOTIFICATIONS = (0xC0502100, 0xC0182101, 0x40082102, 0x40182103)


def supervisor_program() -> bytes:
    """The supervisor's own filter: no program, process, socket or namespace is made, and no code is loaded."""
    rules = [_load(_LD_ARCH), _equal(_ARCH_X86_64, 1, 0), _return(_KILL), _load(_LD_NR)]
    for number, name in _SUPERVISOR.items():
        if name in ("mmap", "mprotect"):
            rules += _only_if(number, _load(_arg(2)), _any_bit(0x04, 0, 1), _return(_EPERM), _return(_ALLOW))
        elif name == "ioctl":
            values = (0x5401, 0x5451, *_NOTIFICATIONS)
            tests = [_equal(value, len(values) - place, 0) for place, value in enumerate(values)]
            rules += _only_if(number, _load(_arg(1)), *tests, _return(_EPERM), _return(_ALLOW))
        else:
            rules += _only_if(number, _return(_ALLOW))
    return b"".join([*rules, _return(_EPERM)])
