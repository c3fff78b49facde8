"""A supervisor that is somebody else's: hostile code runs as it, behind its walls, and still is not the host."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from lapha.sandbox import BubblewrapSandbox, Limits, SandboxError, SandboxUnavailable
from lapha.sandbox.jail import walls, wire
from sandbox.availability import need_bubblewrap

from .canaries import Canaries
from .test_escapes import _descendants

_HOSTILE = """
import sys
sys.path.insert(0, "/lapha/code")
from lapha.sandbox.jail import supervisor
PROBES = @PROBES@
def serve(self):
    import ctypes, os, socket, subprocess, sys
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    found = []
    for name, code in PROBES.items():
        try:
            exec(code, {"os": os, "libc": libc, "socket": socket, "subprocess": subprocess, "ctypes": ctypes, "self": self})
            found.append(name)
        except BaseException:
            pass
    self._reply("failed", reason="|".join(found))
supervisor.Supervisor.serve = serve
from lapha.sandbox.jail.launcher import main
main(int(sys.argv[1]))
"""

# each must raise; those that are only a matter of what is where run as the launcher too, which has no filter
PLACES = {
    "read the secret": "open('@SECRET_FILE@').read()",
    "read it through the first process's root": "open('/proc/1/root@SECRET_FILE@').read()",
    "read it through any process's root": "assert any(os.path.exists(f'/proc/{pid}/root@SECRET_FILE@') for pid in os.listdir('/proc') if pid.isdigit())",
    "read it through any process's folder": "assert any(os.path.exists(f'/proc/{pid}/cwd/@SECRET_FILE@') for pid in os.listdir('/proc') if pid.isdigit())",
    "read it through what is open": "assert any('@SECRET_NAME@' in os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd'))",
    "find the secret in an environment": "assert any(b'@SECRET@' in open(f'/proc/{pid}/environ', 'rb').read() for pid in os.listdir('/proc') if pid.isdigit() and os.access(f'/proc/{pid}/environ', 4))",
    "read the users": "open('/etc/passwd').read()",
    "list the homes": "assert set(os.listdir('/home')) - set('@PREFIX@'.split('/'))",
    "list root's home": "assert set(os.listdir('/root')) - set('@PREFIX@'.split('/'))",
    "see a process of the host": "os.stat('/proc/@VICTIM@/exe')",
    "see many processes": "assert sum(pid.isdigit() for pid in os.listdir('/proc')) > 20",
    "write outside": "open('@OUTSIDE@/escaped', 'w')",
    "write to the root": "open('/escaped', 'w')",
    "write to the library": "open(os.__file__, 'a')",
    "write to its own code": "open('/lapha/code/lapha/sandbox/jail/escaped', 'w')",
    "write to shared memory": "open('/dev/shm/lapha-escaped-@NONCE@', 'w')",
    "connect to the host, IPv4": "socket.create_connection(('127.0.0.1', @PORT@), 2)",
    "connect to the host, IPv6": "socket.create_connection(('::1', @PORT@), 2)",
    "connect to a socket file": "s = socket.socket(socket.AF_UNIX); s.connect('@UNIX@')",
    "connect to an abstract socket": "s = socket.socket(socket.AF_UNIX); s.connect('\\0@ABSTRACT@')",
    "signal the host": "os.kill(@VICTIM@, 0)",
    "become root": "os.setuid(0)",
    "change the root": "os.chroot('/proc/1/root')",
    "mount": "assert libc.mount(b'none', b'/tmp', b'tmpfs', 0, None) == 0",
    "set the clock": "import time; time.clock_settime(0, 1)",
    "open a disk": "os.open('/dev/vda', 0)",
}
CALLS = {
    "run a program": "subprocess.run(['/lapha/bwrap', '--version'], check=True)",
    "fork": "pid = os.fork(); os._exit(0) if pid == 0 else None",
    "start a thread": "import threading; threading.Thread(target=print).start()",
    "make a socket": "socket.socket()",
    "make a socket pair": "socket.socketpair()",
    "new user namespace": "assert libc.unshare(0x10000000) == 0",
    "enter a namespace": "assert libc.setns(os.open('/proc/1/ns/mnt', 0), 0) == 0",
    "trace": "assert libc.ptrace(0x4206, os.getppid(), 0, 0) == 0",
    "read another's memory": "assert libc.syscall(310, os.getppid(), 0, 0, 0, 0, 0) == 0",
    "write the launcher's memory": "open(f'/proc/{os.getppid()}/mem', 'r+b')",
    "take another's descriptor": "assert libc.syscall(438, os.pidfd_open(os.getppid()), 0, 0) >= 0",
    "memory that runs": "import mmap; mmap.mmap(-1, 4096, flags=34, prot=7)",
    "load a library": "ctypes.CDLL('libutil.so.1')",
    "memory without a name": "os.memfd_create('x')",
    "ring of requests": "assert libc.syscall(425, 4, ctypes.create_string_buffer(256)) >= 0",
    "kernel's program": "assert libc.syscall(321, 0, (ctypes.c_uint32 * 16)(2, 4, 4, 1), 64) >= 0",
    "make a folder": "os.mkdir('/tmp/escaped')",
    "link": "os.symlink('/', '/tmp/escaped')",
    "raise its limits": "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))",
}


def reached(monkeypatch, canaries, probes, boot):
    """The names of the probes that got what they wanted."""
    filled = {name: canaries.fill(code) for name, code in probes.items()}
    monkeypatch.setattr(walls, "OUTER_BOOT", boot.replace("@PROBES@", repr(filled)))
    sandbox = BubblewrapSandbox(Limits(), packages=(), preload=())
    try:
        with pytest.raises(SandboxError, match=r"the sandbox has failed: .*") as failed:
            asyncio.run(sandbox.open().run("1"))
    finally:
        sandbox.close()
    return [name for name in str(failed.value).removeprefix("the sandbox has failed: ").split("|") if name]


def test_hostile_code_as_the_supervisor_reaches_nothing(monkeypatch, tmp_path):
    need_bubblewrap()
    canaries = Canaries(tmp_path)
    try:
        assert reached(monkeypatch, canaries, PLACES | CALLS | {"control": "os.getpid()"}, _HOSTILE) == ["control"]
        assert canaries.harm() == []
    finally:
        canaries.close()


def test_without_its_filter_the_outer_wall_still_holds(monkeypatch, tmp_path):
    """And the filter is what stops the calls: without it, most of them work."""
    need_bubblewrap()
    canaries = Canaries(tmp_path)
    unfiltered = _HOSTILE.replace("PROBES =", "supervisor.confine.install = lambda *a, **k: None\nPROBES =")
    try:
        got = reached(monkeypatch, canaries, PLACES | CALLS, unfiltered)
        assert set(got) & set(PLACES) == set()
        assert len(got) >= 8, got
        assert "write the launcher's memory" not in got
        assert canaries.harm() == []
    finally:
        canaries.close()


LIES = {
    "a message longer than any": b"\xff\xff\xff\x7f",
    "no message": wire.frame(b"garbage"),
    "a result nobody asked for": wire.frame(wire.encode(wire.TO_LAPHA, "result", id=99, outcome="ok", output="", value=None, error=None, seconds=0.0)),
    "a kind of its own": wire.frame(wire.pack([b"unpickle", b"x"])),
    "not a number": wire.frame(wire.pack([b"result", bytes(8), b"ok", b"", b"", b"", b"\xff" * 8])),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_supervisor_that_lies_is_an_error_and_no_more(monkeypatch, lie):
    need_bubblewrap()
    boot = _HOSTILE.replace('self._reply("failed", reason="|".join(found))', f"self._client.sendall({LIES[lie]!r})")
    monkeypatch.setattr(walls, "OUTER_BOOT", boot.replace("@PROBES@", "{}"))
    sandbox = BubblewrapSandbox(Limits(), packages=(), preload=())
    with pytest.raises(SandboxError, match="supervisor has ended"):
        asyncio.run(sandbox.open().run("1"))
    sandbox.close()


def test_an_outcome_of_its_own_is_an_error(monkeypatch):
    need_bubblewrap()
    boot = _HOSTILE.replace(
        'self._reply("failed", reason="|".join(found))',
        "import time\n    time.sleep(0.5)\n    [self._reply('result', id=n, outcome='fine', output='', value=None, error=None, seconds=0.0) for n in range(9)]",
    )
    monkeypatch.setattr(walls, "OUTER_BOOT", boot.replace("@PROBES@", "{}"))
    with (
        BubblewrapSandbox(Limits(), packages=(), preload=()) as sandbox,
        pytest.raises(SandboxError, match="'fine', which no run does"),
    ):
        asyncio.run(sandbox.open().run("1"))


# the supervisor stops itself before each thing that it does to a process, until it is told to go on
_STEPPED = """
import os, signal, sys
sys.path.insert(0, "/lapha/code")
from lapha.sandbox.jail import kernel, supervisor
def stepped(real):
    def call(*arguments, **options):
        signal.pidfd_send_signal(me, signal.SIGSTOP)
        return real(*arguments, **options)
    return call
real_serve = supervisor.Supervisor.serve
def serve(self):
    global me
    me = os.pidfd_open(os.getpid())
    for name in ("receive", "answer", "give_descriptor", "read_memory", "write_memory", "namespaces", "open_files"):
        setattr(kernel, name, stepped(getattr(kernel, name)))
    real_serve(self)
supervisor.Supervisor.serve = serve
from lapha.sandbox.jail.launcher import main
main(int(sys.argv[1]))
"""

_VICTIM = """
import os
for name in ('a', 'a/b', 'd'):
    os.mkdir(name)
for name in ('a/b/@SECRET_NAME@', 'd/@SECRET_NAME@', '@SECRET_NAME@'):
    open(name, 'w').write('mine')
"""
_SWAPPER = """
import os, time
end = time.monotonic() + 6
target = os.path.dirname('@SECRET_FILE@')
while time.monotonic() < end:
    for name in ('a', 'd', 'a/b'):
        for root in ('.', '/box', '/proc/1/root/box', '..'):
            path = os.path.join(root, name)
            try: os.rename(path, path + 'x')
            except OSError: pass
            try: os.symlink(target, path)
            except OSError: pass
            try: os.unlink(path); os.rename(path + 'x', path)
            except OSError: pass
"""
_READ_ALL = """
import os
{os.path.join(folder, name): open(os.path.join(folder, name)).read() for folder, _, names in os.walk('.') for name in names}
"""


class Stepper:
    """Lets a supervisor that stops at every step go on, a moment later each time."""

    def __init__(self, top: int) -> None:
        self.steps = 0
        self._top, self._going = top, True
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while self._going:
            for pid in _descendants(self._top):
                try:
                    stopped = ") T " in Path(f"/proc/{pid}/stat").read_text()
                    if stopped:
                        time.sleep(0.02)  # here the others work on
                        os.kill(pid, signal.SIGCONT)
                        self.steps += 1
                except OSError:
                    continue
            time.sleep(0.001)

    def stop(self) -> None:
        self._going = False
        self._thread.join()


def test_nothing_is_gained_at_any_step_of_keeping_a_runs_files(monkeypatch, tmp_path):
    """A partner changes folders for links to the host's while the supervisor stands still before each of its steps."""
    need_bubblewrap()
    canaries = Canaries(tmp_path)
    monkeypatch.setattr(walls, "OUTER_BOOT", _STEPPED)

    async def attack(sandbox):
        victim, partner = sandbox.open(), sandbox.open()
        swapping = asyncio.create_task(partner.run(canaries.fill(_SWAPPER)))
        kept = await victim.run(canaries.fill(_VICTIM))
        read = [await victim.run(canaries.fill(_READ_ALL)), await victim.fork().run(canaries.fill(_READ_ALL))]
        return kept, read, await swapping

    limits = Limits(wall_seconds=60, cpu_seconds=20)
    try:
        with BubblewrapSandbox(limits, concurrency=4, packages=(), preload=()) as sandbox:
            stepper = Stepper(sandbox.supervisor_pid)
            kept, read, swapped = asyncio.run(attack(sandbox))
            stepper.stop()
        assert kept.outcome == "ok", kept
        name = canaries.file.name
        mine = {f"./a/b/{name}": "mine", f"./d/{name}": "mine", f"./{name}": "mine"}
        assert [dict(sorted(eval(result.value).items())) for result in read] == [dict(sorted(mine.items()))] * 2
        assert canaries.secret not in str((kept, read, swapped))
        assert stepper.steps >= 30
        assert canaries.harm() == []
    finally:
        canaries.close()


@pytest.mark.parametrize(
    ("where", "says"),
    [("inner", "does not allow the jail a user namespace inside another"), ("outer", "reating new namespace failed")],
)
def test_a_machine_that_allows_too_few_namespaces_is_told_which_step_failed(monkeypatch, where, says):
    """`--disable-userns` is what such a machine does."""
    need_bubblewrap()
    if where == "outer":
        monkeypatch.setattr(walls, "_APART", (*walls._APART, "--disable-userns"))
    else:
        boot = walls.OUTER_BOOT.replace(
            "from lapha", "from lapha.sandbox.jail import walls; walls._APART += ('--disable-userns',); from lapha"
        )
        monkeypatch.setattr(walls, "OUTER_BOOT", boot)
    with pytest.raises(SandboxUnavailable, match=f"does not start on this machine: .*{says}"):
        BubblewrapSandbox(Limits(), packages=(), preload=())
