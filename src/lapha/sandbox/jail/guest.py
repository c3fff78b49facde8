"""What runs inside the jail. One file, standard library only; started by `launch.py`, never imported by the host.

It loads the packages and lets them do once what they do lazily (so that branches share it), confines itself with the system call filter, and then serves: hand over a message, wait for a
command, obey. Processes that have run a model's code are that code's to do with as it likes; the supervisor therefore
believes nothing that it cannot check, and no rule of the jail depends on what is written below.
"""

import ast
import ctypes
import gc
import importlib
import io
import itertools
import json
import linecache
import os
import random
import signal
import socket
import stat
import struct
import sys
import tempfile
import traceback
import types

from lapha.sandbox.jail import confine, wire

HYPERCALL = 6810
CAPACITY = 1 << 16  # of the buffer that commands are written to; larger ones announce themselves
MAX_ENTRIES = 500  # files and folders that a session may keep
MAX_DEPTH = 20
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_STEP = "<step {}>"  # file name of a run's code in tracebacks; the number of the run on its branch
_steps = itertools.count(1)


class OutputLimit(BaseException):
    """Printed too much. Not an `Exception`, so that ordinary handlers let it through."""


class Attempt:
    """Here the model's code begins and ends: whatever it raises, `SystemExit` and its own kinds too, is kept."""

    error = None

    def __enter__(self):
        return self

    def __exit__(self, _kind, error, _traceback):
        self.error = error
        return True


class Printed(io.BufferedIOBase):
    """Keeps the first `limit` bytes of what is printed."""

    def __init__(self, limit):
        self.limit = limit
        self.parts = []
        self.size = 0

    def writable(self):
        return True

    def write(self, data):
        data = bytes(data[: self.limit - self.size + 1])
        self.parts.append(data[: self.limit - self.size])
        self.size += len(data)
        if self.size > self.limit:
            self.size = self.limit
            raise OutputLimit
        return len(data)

    def text(self):
        # a character that the limit has cut is left out
        return b"".join(self.parts).decode("utf-8", "ignore" if self.size == self.limit else "replace")


class Pair:
    """One end of what `socket.socketpair` returns here, where there are no sockets: two pipes. asyncio needs it."""

    def __init__(self, reader, writer):
        self._ends = reader, writer

    def fileno(self):
        return self._ends[0]

    def setblocking(self, blocking):
        for end in self._ends:
            os.set_blocking(end, blocking)

    def recv(self, size):
        return os.read(self._ends[0], size)

    def send(self, data):
        return os.write(self._ends[1], data)

    sendall = send

    def close(self):
        ends, self._ends = self._ends, (-1, -1)
        for end in ends:
            if end >= 0:
                os.close(end)


def socketpair(*_):
    (left, right), (back, forth) = os.pipe(), os.pipe()
    return Pair(left, forth), Pair(back, right)


def exchange(message, size=CAPACITY):
    """Hand over a message, wait, and return the next command. The kernel suspends this process meanwhile."""
    buffer = ctypes.create_string_buffer(size)
    while True:
        size = _libc.syscall(
            ctypes.c_long(HYPERCALL),
            ctypes.c_char_p(message),
            ctypes.c_long(len(message)),
            buffer,
            ctypes.c_long(len(buffer)),
        )
        if size >= 0:
            return wire.decode(wire.TO_GUEST, ctypes.string_at(buffer, size))


def serve():
    kind, fields = exchange(say("ready"))
    while True:
        if kind == "grow":
            kind, fields = exchange(say("ready"), fields["size"])
            continue
        message = say("ready")
        if kind == "fork":
            state = random.getstate()
            message = say("parent" if os.fork() else "child")
            random.setstate(state)  # forking seeds it anew, and a rebuilt state would not be the same
        elif kind == "run":
            message = run(**fields)
        elif kind == "leave":
            confine.come_home()
            message = say("home")
        elif kind == "huge":
            huge_pages(fields["ranges"])
        kind, fields = exchange(message)


def say(kind, **fields):
    return wire.encode(wire.FROM_GUEST, kind, **fields)


def huge_pages(ranges):
    """Put memory into huge pages: a fork copies one entry for each page, and takes half as long. A hint, no more."""
    for start, size in struct.iter_unpack("=QQ", ranges):
        for advice in (14, 25):  # MADV_HUGEPAGE, MADV_COLLAPSE
            _libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), advice)


def run(code, output_bytes, file_bytes, files):
    """Run one step's code in the session's module; the result as a message."""
    printed = Printed(output_bytes)
    stream = io.TextIOWrapper(printed, encoding="utf-8", errors="backslashreplace", write_through=True)  # type: ignore[type-var]
    confine.enter_own_namespaces()
    for _ in range(3):  # no file is open between runs, so that branches share none: these become 0, 1, 2
        os.open("/dev/null", os.O_RDWR)
    os.chdir(confine.WORK_AT)
    os.environ.update(TMPDIR=confine.WORK_AT, HOME=confine.WORK_AT)
    tempfile.tempdir = confine.WORK_AT
    put_files(files)
    sys.stdout = sys.stderr = stream
    result = {"outcome": "ok", "value": None, "error": None}
    with Attempt() as attempt:
        value = execute(code)
        if value is not None:
            result["value"] = short(repr(value), output_bytes)
    if isinstance(attempt.error, MemoryError):
        result["outcome"] = "memory"
    elif isinstance(attempt.error, OutputLimit):
        result["outcome"] = "output"
    elif attempt.error is not None:
        result["outcome"] = "error"
        result["error"] = short(describe(attempt.error), output_bytes)
    attempt.error = None
    sys.stdout = sys.stderr = None
    kept = take_files(os.fsencode(confine.WORK_AT), file_bytes) if result["outcome"] in ("ok", "error") else b""
    if kept is None:
        result["outcome"] = "files"
    _close_all(0, 4096)
    return say("result", output=printed.text(), files=kept or b"", **result)


_open, _read, _close_all = os.open, os.read, os.closerange  # code may replace those of `os`


def put_files(packed):
    """Write the session's files into the working directory."""
    parts = wire.unpack(packed)
    for path, content in zip(parts[::2], parts[1::2]):
        if content[:1] != b"+":
            os.mkdir(path, 0o700)
            continue
        with open(_open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(memoryview(content)[1:])


def take_files(top, limit):
    """The files in a folder, packed; None if there are too many, too deep, too large or unreadable ones.

    Links, pipes and the like are left out.
    """
    parts: list[bytes] = []
    folders = [(b"", 0)]
    try:
        for prefix, depth in folders:
            for name in os.listdir(os.path.join(top, prefix)):
                path = os.path.join(prefix, name)
                mode = os.lstat(os.path.join(top, path)).st_mode
                if len(parts) >= 2 * MAX_ENTRIES or depth >= MAX_DEPTH:
                    return None
                if stat.S_ISDIR(mode):
                    folders.append((path, depth + 1))
                    parts += path, b""
                elif stat.S_ISREG(mode):
                    content = take_file(os.path.join(top, path), limit)
                    if content is None:
                        return None
                    limit -= len(content) - 1
                    parts += path, content
    except OSError:
        return None
    return wire.pack(parts)


def take_file(path, limit):
    descriptor = _open(path, os.O_RDONLY | os.O_NOFOLLOW)
    pieces, size = [b"+"], 0
    while piece := _read(descriptor, 1 << 20):
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            return None
    os.close(descriptor)
    return b"".join(pieces)


def execute(code):
    """Run all of it; the value of the last line if that is an expression."""
    name = _STEP.format(next(_steps))
    tree = ast.parse(code, name)
    last = ast.Expression(tree.body.pop().value) if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    linecache.cache[name] = (len(code), None, code.splitlines(True), name)
    names = sys.modules["__main__"].__dict__
    exec(compile(tree, name, "exec"), names)
    return None if last is None else eval(compile(last, name, "eval"), names)


def describe(error):
    """The traceback through the model's own code, at most its last eight frames."""
    lines = [type(error).__name__]
    with Attempt():  # the exception's own __str__ may do anything
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith("<step ")]
        lines = traceback.format_list(frames[-8:]) + traceback.format_exception_only(type(error), error)
    return "".join(lines)


def short(text, limit):
    return text if len(text) <= limit else text[:limit] + "…"


def main():
    channel = socket.socket(fileno=int(sys.argv[2]))
    _, ancillary, _, _ = channel.recvmsg(1, socket.CMSG_SPACE(4))
    proc = struct.unpack("=i", ancillary[0][2])[0]
    with channel.makefile("rb") as lines:
        config = json.loads(lines.readline())
    confine.make_home(proc, config["mount_options"].encode())
    sys.path.append(config["packages_at"])
    for name in config["preload"]:
        importlib.import_module(name)
    for code in config["warm"]:
        exec(code, {})
    for name in [name for name in sys.modules if name.split(".")[0] == "lapha"]:
        del sys.modules[name]
    session = types.ModuleType("__main__")
    session.__dict__["__builtins__"] = __builtins__
    sys.modules["__main__"] = session
    seed(config["seed"])
    sys.set_int_max_str_digits(config["int_digits"])
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.collect()
    gc.freeze()
    limits = config["memory_bytes"], config["file_bytes"]
    confine.hand_over(
        channel,
        lambda: confine.install(bytes.fromhex(config["filter"]), listen=True),
        lambda: confine.limit_memory(proc, *limits),
    )
    socket.socketpair = socketpair
    os.closerange(0, 4096)
    serve()


def seed(value):
    """Every session starts from the same seeds, so that a state can be rebuilt by running its code again."""
    random.seed(value)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(value)


if __name__ == "__main__":
    main()
