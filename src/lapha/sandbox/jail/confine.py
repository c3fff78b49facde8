"""How a process gives up its rights: namespaces, capabilities, system calls. Standard library only, inside the jail too."""

import array
import ctypes
import os
import queue
import resource
import socket
import struct
import threading

NAMESPACES = 0x00020000 | 0x08000000
"""CLONE_NEWNS | CLONE_NEWIPC: what a run has of its own."""

WORK_AT = "/box"
"""Where a run's private folder is."""

MOUNT_FLAGS = 2 | 4 | 8
"""MS_NOSUID | MS_NODEV | MS_NOEXEC."""

HOME_NUMBER = 40
"""File descriptor at which a process gets the handle of its home."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def hand_over(channel, make, last):
    """Make a file descriptor and send it, although making it forbids sending: a thread does that, which is not bound.

    It does something else before: what forbids itself to all that come later.
    """
    _libc.mallopt(-8, 1)  # M_ARENA_MAX: no memory of its own for one thread
    threading.stack_size(1 << 18)
    made: queue.SimpleQueue[int] = queue.SimpleQueue()

    def send():
        last()
        rights = array.array("i", [made.get()]).tobytes()
        channel.sendmsg([b"ready"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])

    sender = threading.Thread(target=send)
    sender.start()
    made.put(make())
    sender.join()
    channel.detach()


def must(result):
    """The result of a system call of the C library.

    Raises:
        OSError: it failed.
    """
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def enter_own_namespaces():
    """Leave the namespaces that all waiting processes share, for ones with an empty folder of one's own."""
    must(_libc.unshare(NAMESPACES))
    must(_libc.mount(b"tmpfs", WORK_AT.encode(), b"tmpfs", ctypes.c_ulong(MOUNT_FLAGS), _mount_options))


def come_home():
    """Go back, by the handle that the supervisor puts in while this process waits in the call."""
    must(_libc.setns(HOME_NUMBER, NAMESPACES))
    os.close(HOME_NUMBER)


_mount_options = b""


def make_home(proc, options):
    """A user namespace in which all processes may change their mount and IPC namespaces, and nothing else.

    Raises:
        RuntimeError: this machine does not allow that; says which step.
    """
    global _mount_options
    _mount_options = options
    user, group = os.getuid(), os.getgid()
    step = "a user namespace inside another (sysctl user.max_user_namespaces)"
    try:
        must(_libc.unshare(0x10000000 | NAMESPACES))
        step = "its user's number there"
        for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            file = os.open(f"self/{name}", os.O_WRONLY, dir_fd=proc)
            os.write(file, text.encode())
            os.close(file)
        must(
            _libc.mount(b"none", b"/", None, ctypes.c_ulong(0x4000 | 0x40000), None)
        )  # what is mounted later stays apart
        home = [os.open(f"self/ns/{kind}", os.O_RDONLY, dir_fd=proc) for kind in ("mnt", "ipc")]
        step = "mount and IPC namespaces for each run (sysctl user.max_mnt_namespaces, user.max_ipc_namespaces)"
        enter_own_namespaces()
        step = "coming back from them"
        for handle in home:
            must(_libc.setns(handle, 0))
            os.close(handle)
        keep_rights(18, 21)  # CAP_SYS_CHROOT and CAP_SYS_ADMIN, which setns and unshare ask for
    except OSError as error:
        raise RuntimeError(f"this machine does not allow the jail {step}: {error}") from error


def limit_memory(proc, memory_bytes, file_bytes):
    """Limits that this process and all forks of it keep.

    Args:
        proc: handle of /proc.
        memory_bytes: address space on top of what this process has.
        file_bytes: largest file.
    """
    statm = os.open("self/statm", os.O_RDONLY, dir_fd=proc)
    own = int(os.read(statm, 99).split()[0]) * os.sysconf("SC_PAGE_SIZE")
    os.close(statm)
    fixed = {
        resource.RLIMIT_AS: own + memory_bytes,
        resource.RLIMIT_FSIZE: file_bytes,
        resource.RLIMIT_NOFILE: 64,  # few enough that all pipes of all runs stay below the kernel's limit for a user
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
    }
    for kind, value in fixed.items():
        resource.setrlimit(kind, (value, value))


def hide_memory():
    """Let no other process of this user look into this one's memory (PR_SET_DUMPABLE)."""
    must(_libc.prctl(4, 0, 0, 0, 0))


def keep_rights(*kept):
    """Give up all capabilities but these, for good."""
    for right in range(64):
        if right not in kept and _libc.prctl(24, right, 0, 0, 0) < 0:  # PR_CAPBSET_DROP
            break  # there are no more
    low = sum(1 << right for right in kept)
    header = struct.pack("=Ii", 0x20080522, 0)
    must(_libc.capset(header, struct.pack("=6I", low, low, 0, 0, 0, 0)))


def install(program, *, listen):
    """Install a system call filter for good; with `listen`, the file descriptor on which its questions are asked.

    Raises:
        OSError: the kernel does not have it.
    """
    buffer = ctypes.create_string_buffer(program, len(program))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    filter_program = Program(len(program) // 8, ctypes.addressof(buffer))
    set_mode_filter, flags = 1, 8 if listen else 0
    no_new_privileges = 38
    _libc.prctl(no_new_privileges, 1, 0, 0, 0)
    listener = _libc.syscall(
        ctypes.c_long(317), ctypes.c_long(set_mode_filter), ctypes.c_long(flags), ctypes.byref(filter_program)
    )
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp user notification is not available")
    return listener
