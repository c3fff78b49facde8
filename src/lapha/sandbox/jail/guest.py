"""What runs inside the jail. One file, standard library only; started by `launch.py`, never imported by the host.

It loads the packages and lets them do once what they do lazily (so that branches share it), confines itself with the system call filter, and then serves: hand over a message, wait for a
command, obey. Processes that have run a model's code are that code's to do with as it likes; the supervisor therefore
believes nothing that it cannot check, and no rule of the jail depends on what is written below.
"""

import array
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
import sys
import tempfile
import traceback
import types

HYPERCALL = 6810
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
        return b"".join(self.parts).decode("utf-8", "replace")


def exchange(message, capacity, buffer):
    """Hand over a message, wait, and return the next command. The kernel suspends this process meanwhile."""
    while True:
        size = _libc.syscall(
            ctypes.c_long(HYPERCALL),
            ctypes.c_char_p(message),
            ctypes.c_long(len(message)),
            buffer,
            ctypes.c_long(capacity),
        )
        if size >= 0:
            return json.loads(ctypes.string_at(buffer, size))  # not .raw, which touches all of it


def serve(capacity):
    buffer = ctypes.create_string_buffer(capacity)
    message = b'{"is": "ready"}'
    while True:
        command = exchange(message, capacity, buffer)
        if command["do"] == "fork":
            state = random.getstate()
            message = b'{"is": "parent"}' if os.fork() else b'{"is": "child"}'
            random.setstate(state)  # forking seeds it anew, and a rebuilt state would not be the same
        elif command["do"] == "run":
            message = run(command)
        elif command["do"] == "huge":
            huge_pages(command["ranges"])


def huge_pages(ranges):
    """Put memory into huge pages: a fork copies one entry for each page, and takes half as long. A hint, no more."""
    for start, size in ranges:
        for advice in (14, 25):  # MADV_HUGEPAGE, MADV_COLLAPSE
            _libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), advice)


def run(command):
    """Run one step's code in the session's module; the result as JSON bytes."""
    limit = command["output_bytes"]
    printed = Printed(limit)
    stream = io.TextIOWrapper(printed, encoding="utf-8", errors="backslashreplace", write_through=True)  # type: ignore[type-var]
    os.chdir(command["directory"])
    os.environ.update(TMPDIR=command["directory"], HOME=command["directory"])
    tempfile.tempdir = command["directory"]
    sys.stdout = sys.stderr = stream
    result = {"is": "result", "outcome": "ok", "value": None, "error": None}
    with Attempt() as attempt:
        value = execute(command["code"])
        if value is not None:
            result["value"] = short(repr(value), limit)
    if isinstance(attempt.error, MemoryError):
        result["outcome"] = "memory"
    elif isinstance(attempt.error, OutputLimit):
        result["outcome"] = "output"
    elif attempt.error is not None:
        result["outcome"] = "error"
        result["error"] = short(describe(attempt.error), limit)
    attempt.error = None
    result["output"] = printed.text()
    sys.stdout = sys.stderr = None
    os.closerange(3, 4096)
    os.chdir("/")
    return json.dumps(result).encode()


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


def confine(program):
    """Install the filter; the file descriptor on which the supervisor is asked."""
    buffer = ctypes.create_string_buffer(program, len(program))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    filter_program = Program(len(program) // 8, ctypes.addressof(buffer))
    set_mode_filter, new_listener = 1, 8
    no_new_privileges = 38
    _libc.prctl(no_new_privileges, 1, 0, 0, 0)
    listener = _libc.syscall(
        ctypes.c_long(317), ctypes.c_long(set_mode_filter), ctypes.c_long(new_listener), ctypes.byref(filter_program)
    )
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp user notification is not available")
    return listener


def main():
    channel = socket.socket(fileno=int(sys.argv[1]))
    with channel.makefile("rb") as lines:
        config = json.loads(lines.readline())
    sys.path.append(config["packages_at"])
    for name in config["preload"]:
        importlib.import_module(name)
    for code in config["warm"]:
        exec(code, {})
    session = types.ModuleType("__main__")
    session.__dict__["__builtins__"] = __builtins__
    sys.modules["__main__"] = session
    seed(config["seed"])
    sys.set_int_max_str_digits(config["int_digits"])
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.collect()
    gc.freeze()
    listener = confine(bytes.fromhex(config["filter"]))
    channel.sendmsg([b"ready"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [listener]).tobytes())])
    null = os.open("/dev/null", os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    channel.detach()
    os.closerange(3, 4096)
    serve(config["capacity"])


def seed(value):
    """Every session starts from the same seeds, so that a state can be rebuilt by running its code again."""
    random.seed(value)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(value)


if __name__ == "__main__":
    main()
