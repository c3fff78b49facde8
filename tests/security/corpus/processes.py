"""Other processes: making them, stopping them, looking into them, outliving them."""

from __future__ import annotations

from . import ANY, ENDS, Program

STOPPED = ENDS | {"crashed", "timeout"}


def makes(name: str, code: str, control: bool = True) -> Program:
    """The code must raise."""
    return Program(name, f"{code}\nprint('ESCAPED')", STOPPED, control)


def calls(name: str, code: str, control: bool = True) -> Program:
    """The libc call must fail."""
    return makes(name, f"import ctypes, os\nlibc = ctypes.CDLL(None)\nassert {code} >= 0", control)


PROGRAMS = [
    makes("fork", "import os\nif os.fork() == 0: os._exit(0)"),
    makes("fork a terminal", "import os\nif os.forkpty()[0] == 0: os._exit(0)"),
    makes(
        "fork by the C library",
        "import ctypes, os\npid = ctypes.CDLL(None).fork()\nassert pid >= 0\nif pid == 0: os._exit(0)",
    ),
    calls("fork by system call", "(lambda pid: os._exit(0) if pid == 0 else pid)(libc.syscall(57))"),
    calls("clone with other flags", "(lambda pid: os._exit(0) if pid == 0 else pid)(libc.syscall(56, 17, 0, 0, 0, 0))"),
    calls(
        "clone into new namespaces",
        "(lambda pid: os._exit(0) if pid == 0 else pid)(libc.syscall(56, 0x10000011, 0, 0, 0, 0))",
    ),
    calls(
        "clone with the fork's flags",
        "(lambda pid: os._exit(0) if pid == 0 else pid)(libc.syscall(56, 0x1200011, 0, 0, 0, 0))",
    ),
    calls(
        "clone3",
        "(lambda pid: os._exit(0) if pid == 0 else pid)(libc.syscall(435, (ctypes.c_uint64 * 8)(0, 0, 0, 0, 17), 64))",
    ),
    makes("start a thread", "import threading\nt = threading.Thread(target=print)\nt.start()\nt.join()"),
    makes(
        "start a pool of threads", "from concurrent.futures import ThreadPoolExecutor as P\nP(1).submit(print).result()"
    ),
    makes("start a program by subprocess", "import subprocess\nsubprocess.run(['/bin/true'])"),
    makes("start a program by os.system", "import os\nassert os.system('true') == 0"),
    makes("start a program by os.popen", "import os\nassert os.popen('echo x').read()"),
    makes("start a program by posix_spawn", "import os\nos.posix_spawn('/usr/bin/true', ['true'], {})"),
    makes(
        "start Python again",
        "import os, sys\nassert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, '-c', '']) == 0",
    ),
    makes(
        "become another program",
        "import os, sys\nif not os.environ.get('x'): os.execve('/usr/bin/echo', ['echo', 'ESCAPED'], {})",
    ),
    makes(
        "become a program from memory",
        "import ctypes, os\nfd = os.memfd_create('x')\nos.write(fd, b'#!/bin/sh\\n')\nassert fd >= 0",
    ),
    makes(
        "start a process by multiprocessing",
        "import multiprocessing as m\np = m.get_context('fork').Process(target=int)\np.start()\np.join()",
    ),
    makes(
        "start a pool of processes",
        "from multiprocessing import get_context as c\nwith c('fork').Pool(1) as p: p.map(int, '1')",
    ),
    makes(
        "become a daemon", "import os\nif os.fork() == 0:\n os.setsid()\n if os.fork() == 0: os._exit(0)\n os._exit(0)"
    ),
    Program("fork bomb", "import os\nwhile True:\n try: os.fork()\n except OSError: pass", ANY),
    Program(
        "fork bomb with threads",
        "import threading\nwhile True:\n try: threading.Thread(target=input).start()\n except RuntimeError: pass",
        ANY,
    ),
    Program(
        "fork bomb by system call",
        "import ctypes\nl = ctypes.CDLL(None)\nwhile True: l.syscall(56, 0x1200011, 0, 0, 0, 0)",
        ANY,
    ),
    makes("signal its parent", "import os\nos.kill(os.getppid(), 0)"),
    makes("signal a process of the host", "import os\nos.kill(@VICTIM@, 0)"),
    Program("kill its parent", "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nprint('ESCAPED')", STOPPED),
    Program("kill everything", "import os, signal\nos.kill(-1, signal.SIGKILL)\nprint('ESCAPED')", STOPPED),
    Program("kill the first process", "import os, signal\nos.kill(1, signal.SIGKILL)\nprint('ESCAPED')", STOPPED),
    Program("kill its group", "import os, signal\nos.killpg(0, signal.SIGKILL)\nprint('ESCAPED')", STOPPED),
    Program(
        "kill its neighbours",
        "import os, signal\nfor pid in range(1, 400):\n try:\n  os.kill(pid, signal.SIGKILL); print('ESCAPED')\n except OSError: pass",
        STOPPED,
    ),
    Program(
        "kill its neighbours' threads",
        "import ctypes\nl = ctypes.CDLL(None)\nhit = [p for p in range(1, 400) if l.syscall(200, p, 9) == 0 or l.syscall(234, p, p, 9) == 0]\nprint('ESCAPED' if hit else '')",
        STOPPED,
    ),
    calls("take a handle on a process", "libc.syscall(434, os.getppid(), 0)"),
    calls("queue a signal", "libc.syscall(129, os.getppid(), 0, bytes(128))", control=False),
    calls("trace itself", "libc.ptrace(0, 0, 0, 0)", control=False),
    calls("trace its parent", "libc.ptrace(16, os.getppid(), 0, 0)", control=False),
    calls("read a neighbour's memory", "libc.syscall(310, os.getppid(), 0, 0, 0, 0, 0)"),
    calls("write a neighbour's memory", "libc.syscall(311, os.getppid(), 0, 0, 0, 0, 0)"),
    calls("compare itself with a neighbour", "libc.syscall(312, os.getpid(), os.getppid(), 2, 0, 0)", control=False),
    calls("steal a file descriptor", "libc.syscall(438, libc.syscall(434, os.getppid(), 0), 0, 0)", control=False),
    calls("have signals sent by the kernel", "libc.fcntl(0, 8, os.getppid())"),
    calls("ask to be told of its parent's death", "libc.prctl(1, 9, 0, 0, 0)"),
    calls("adopt orphans", "libc.prctl(36, 1, 0, 0, 0)"),
    calls("slow others down", "libc.setpriority(2, 0, 19)", control=False),
    calls("hog a processor", "libc.sched_setaffinity(0, 8, bytes([255] * 8))"),
    makes("hear of its children's deaths", "import signal\nsignal.signal(signal.SIGCHLD, print)"),
    makes("lead a group", "import os\nos.setpgid(0, 0)", control=False),
    Program(
        "ignore every signal",
        "import signal\nfor n in range(1, 65):\n try: signal.signal(n, lambda *a: None)\n except (OSError, ValueError): pass\nwhile True: pass",
        ANY,
    ),
    Program(
        "block every signal",
        "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True: pass",
        ANY,
    ),
    Program(
        "set an alarm for later",
        "import signal, time\nsignal.signal(signal.SIGALRM, lambda *a: print('ESCAPED'))\nsignal.alarm(1)\ntime.sleep(1.2)",
        ENDS,
        True,
    ),
    makes(
        "set a timer for later", "import signal\nsignal.setitimer(signal.ITIMER_REAL, 0.5, 0.5)\nsignal.setitimer(0, 0)"
    ),
    makes(
        "run code at a signal",
        "import ctypes\nt = ctypes.c_void_p()\nassert ctypes.CDLL(None).timer_create(1, None, ctypes.byref(t)) == 0",
    ),
    Program("wait for a signal", "import signal\nsignal.pause()", ANY),
    Program("kill itself", "import signal\nsignal.raise_signal(signal.SIGKILL)", ANY),
    Program("stop itself", "import signal\nsignal.raise_signal(signal.SIGSTOP)", ANY),
]
