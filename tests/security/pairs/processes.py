"""What one process can do to another, or learn of it, by its number."""

from __future__ import annotations

from . import Pair


def by_number(channel: str, left: str, right: str, control: bool = True) -> Pair:
    """`right` goes through the processes whose numbers are near its own."""
    return Pair(channel, left, f"until(lambda: some({right}))", control)


def hits(channel: str, left: str) -> Pair:
    """`left` signals its neighbours, and `right` notices. Never run outside: there the neighbours are other people's."""
    return Pair(
        channel,
        f"def act():\n some(lambda pid: {left} and False)\nhold(act)",
        "import signal\nhit = []\nsignal.signal(signal.SIGUSR1, lambda *a: hit.append(1))\nuntil(lambda: hit)",
        control=False,
    )


_BUSY = "while time.monotonic() < END: pass"
_SEE = "word = ctypes.create_string_buffer(b'@WORD@', 64)\naddress = ctypes.addressof(word)\n"

PAIRS = [
    by_number("existence, by kill", "hold()", "lambda pid: os.kill(pid, 0) is None"),
    hits("signal by kill", "os.kill(pid, 10)"),
    hits("signal by tgkill", "call(234, pid, pid, 10)"),
    hits("signal by sigqueue", "libc.sigqueue(pid, 10, ctypes.c_void_p(7))"),
    hits("signal by process handle", "call(424, os.pidfd_open(pid), 10, 0, 0)"),
    Pair("signal to everybody", "import signal\nsignal.signal(signal.SIGUSR2, signal.SIG_IGN)\nhold(lambda: os.kill(-1, signal.SIGUSR2))",
         "import signal\nhit = []\nsignal.signal(signal.SIGUSR2, lambda *a: hit.append(1))\nuntil(lambda: hit)", control=False),
    by_number("process handle", "hold()", "lambda pid: os.pidfd_open(pid) >= 0"),
    Pair("descriptor by process handle", "r, w = os.pipe()\nos.write(w, b'@WORD@')\nhold()",
         "def got(pid):\n p = os.pidfd_open(pid)\n try: return any(take(p, n) for n in range(3, 12))\n finally: os.close(p)\n"
         "def take(p, n):\n try: f = call(438, p, n, 0)\n except OSError: return False\n os.set_blocking(f, False)\n"
         " try: return os.read(f, 99) == b'@WORD@'\n except OSError: return False\n finally: os.close(f)\nuntil(lambda: some(got))", control=False),
    by_number("tracing", "hold()", "lambda pid: libc.ptrace(0x4206, pid, 0, 0) == 0", control=False),
    Pair("memory, read", _SEE + "hold()",
         "b = ctypes.create_string_buffer(64)\nclass V(ctypes.Structure): _fields_ = [('a', ctypes.c_void_p), ('n', ctypes.c_size_t)]\n"
         "near_, far = V(ctypes.addressof(b), 8), V(id(sys), 8)\n"
         "until(lambda: some(lambda pid: call(310, pid, ctypes.byref(near_), 1, ctypes.byref(far), 1, 0) == 8))", control=False, before="import sys"),
    Pair("memory, written", "hold()", "b = ctypes.create_string_buffer(64)\nclass V(ctypes.Structure): _fields_ = [('a', ctypes.c_void_p), ('n', ctypes.c_size_t)]\n"
         "near_, far = V(ctypes.addressof(b), 8), V(there, 8)\nuntil(lambda: some(lambda pid: call(311, pid, ctypes.byref(near_), 1, ctypes.byref(far), 1, 0) == 8))",
         before="import ctypes\nroom = ctypes.create_string_buffer(64)\nthere = ctypes.addressof(room)", control=False),
    by_number("name in /proc", "open('/proc/self/comm', 'w').write('@NONCE@'[:12])\nhold()", "lambda pid: open(f'/proc/{pid}/comm').read().strip() == '@NONCE@'[:12]"),
    by_number("name, by prctl", "libc.prctl(15, b'@NONCE@'[:12])\nhold()", "lambda pid: open(f'/proc/{pid}/stat').read().find('@NONCE@'[:12]) > 0"),
    by_number("memory in /proc", "hold()", "lambda pid: open(f'/proc/{pid}/mem', 'rb') is not None", control=False),
    by_number("open files in /proc", "f = open('@NONCE@', 'w')\nhold()", "lambda pid: any('@NONCE@' in os.readlink(f'/proc/{pid}/fd/{n}') for n in os.listdir(f'/proc/{pid}/fd'))"),
    by_number("folder in /proc", "hold()", "lambda pid: os.listdir(f'/proc/{pid}/cwd') is not None"),
    by_number("priority", "os.setpriority(0, 0, 7)\nhold()", "lambda pid: os.getpriority(0, pid) == 7"),
    by_number("input and output priority", "call(251, 1, 0, (2 << 13) | 5)\nhold()", "lambda pid: call(252, 1, pid) == (2 << 13) | 5"),
    by_number("scheduling policy", "os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))\nhold()", "lambda pid: os.sched_getscheduler(pid) == os.SCHED_BATCH"),
    by_number("scheduling attributes", "hold()", "lambda pid: call(315, pid, ctypes.create_string_buffer(64), 64, 0) == 0"),
    by_number("processors", "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\nhold()", "lambda pid: len(os.sched_getaffinity(pid)) == 1"),
    by_number("limits", "import resource\nresource.setrlimit(resource.RLIMIT_CORE, (0, 0))\nhold()",
              "lambda pid: libc.prlimit(pid, 4, None, ctypes.create_string_buffer(16)) == 0"),
    by_number("list of robust locks", "call(273, ctypes.c_void_p(0x1234567), 24)\nhold()",
              "lambda pid: [p for p in [ctypes.c_size_t()] if call(274, pid, ctypes.byref(p), ctypes.byref(ctypes.c_size_t())) == 0 and p.value == 0x1234567]"),
    by_number("process group", "hold()", "lambda pid: os.getpgid(pid) >= 0"),
    by_number("session", "hold()", "lambda pid: os.getsid(pid) >= 0"),
    by_number("comparison", "hold()", "lambda pid: call(312, os.getpid(), pid, 2, 0, 0) >= 0", control=False),
    by_number("clock of its processor time", _BUSY, "lambda pid: time.clock_gettime((~pid << 3) | 2) > 0.1"),
    by_number("resolution of that clock", "hold()", "lambda pid: time.clock_getres((~pid << 3) | 2) > 0"),
    by_number("measured by perf", _BUSY, "lambda pid: call(298, struct.pack('IIQQ', 1, 112, 0, 0) + bytes(88), pid, -1, -1, 0) >= 0", control=False),
    Pair("end, seen by the common parent", "os._exit(0)", "until(lambda: gone)", control=False,
         before="import os\ngone = []\ndef look():\n try:\n  if os.waitpid(-1, os.WNOHANG)[0]: gone.append(1)\n except ChildProcessError as e: pass\nos.register_at_fork(before=look)"),
    Pair("waiting for another's end", "time.sleep(0.1)\nos._exit(0)", "until(lambda: os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG))", control=False),
    Pair("time of ended children", _BUSY, "import resource\nuntil(lambda: resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime > 0)", control=False),
    Pair("messages of its parent's forks", "hold()", "until(lambda: [1 for pid in near() if os.path.exists(f'/proc/{pid}')])"),
]  # fmt: skip
