"""Sockets of every kind, and file descriptors passed over them."""

from __future__ import annotations

from . import Pair

_IMPORT = "import array, socket\n"


def stream(channel: str, family: str, kind: str, address: str, control: bool = True) -> Pair:
    """`right` listens, `left` connects and sends."""
    made = f"{_IMPORT}s = socket.socket(socket.{family}, socket.{kind})\ns.settimeout(0.05)\n"
    left = f"{made}hold_ = [0]\ndef send():\n s.connect({address})\n s.send(b'@WORD@')\n return True\n"
    left += "while time.monotonic() < END:\n try: send(); break\n except OSError: time.sleep(0.004)\n"
    right = f"{made}s.bind({address})\ns.listen()\nuntil(lambda: s.accept()[0].recv(99) == b'@WORD@')"
    return Pair(channel, left, right, control)


def datagram(channel: str, family: str, address: str, control: bool = True) -> Pair:
    """`right` is bound, `left` sends."""
    made = f"{_IMPORT}s = socket.socket(socket.{family}, socket.SOCK_DGRAM)\ns.settimeout(0.05)\n"
    left = f"{made}def send():\n try: s.sendto(b'@WORD@', {address})\n except OSError: pass\nhold(send)"
    right = f"{made}s.bind({address})\nuntil(lambda: s.recv(99) == b'@WORD@')"
    return Pair(channel, left, right, control)


# a socket whose name the kernel makes up (five hexadecimal digits), because it wants to know who sends
_AUTOBOUND = _IMPORT + (
    "a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
    "a.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)\na.settimeout(0.05)\n"
)
_GUESS = (
    "for number in range(1 << 12):\n"
    " try: b.sendmsg([b'@WORD@'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [fd]))], 0, b'\\0%05x' % number)\n"
    " except OSError: pass\n"
)

PAIRS = [
    stream("abstract stream socket", "AF_UNIX", "SOCK_STREAM", "'\\0@NONCE@'"),
    stream("abstract sequenced socket", "AF_UNIX", "SOCK_SEQPACKET", "'\\0@NONCE@s'"),
    datagram("abstract datagram socket", "AF_UNIX", "'\\0@NONCE@d'"),
    stream("socket file in /tmp", "AF_UNIX", "SOCK_STREAM", "'/tmp/@NONCE@u'"),
    datagram("datagram socket file in /dev/shm", "AF_UNIX", "'/dev/shm/@NONCE@u'"),
    stream("socket file in the working directory", "AF_UNIX", "SOCK_STREAM", "os.path.abspath('@NONCE@')"),
    stream("TCP, IPv4", "AF_INET", "SOCK_STREAM", "('127.0.0.1', @FREE_PORT@)"),
    stream("TCP, IPv6", "AF_INET6", "SOCK_STREAM", "('::1', @FREE_PORT@)", control=False),
    datagram("UDP, IPv4", "AF_INET", "('127.0.0.1', @FREE_PORT@)"),
    datagram("UDP, IPv6", "AF_INET6", "('::1', @FREE_PORT@)", control=False),
    datagram("UDP, broadcast address", "AF_INET", "('127.255.255.255', @FREE_PORT@)", control=False),
    Pair(
        "netlink between users",
        _IMPORT + "s = socket.socket(16, socket.SOCK_RAW, 2)\ns.bind((0, 0))\n"
        "def send():\n for group in range(1, 3):\n  try: s.sendto(b'@WORD@', (0, group))\n  except OSError: pass\nhold(send)",
        _IMPORT + "s = socket.socket(16, socket.SOCK_RAW, 2)\ns.bind((0, 3))\ns.settimeout(0.05)\n"
        "until(lambda: b'@WORD@' in s.recv(99))",
        control=False,
    ),
    Pair(
        "descriptor over an abstract socket",
        _IMPORT + "r, w = os.pipe()\nos.write(w, b'@WORD@')\ns = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "def send():\n try: s.sendmsg([b'x'], [(1, 1, array.array('i', [r]))], 0, '\\0@NONCE@f')\n except OSError: pass\n"
        "hold(send)",
        _IMPORT + "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\ns.bind('\\0@NONCE@f')\ns.settimeout(0.05)\n"
        "def got():\n rights = s.recvmsg(9, 99)[1]\n fd = array.array('i', rights[0][2])[0]\n return os.read(fd, 99) == b'@WORD@'\n"
        "until(got)",
    ),
    Pair(
        "descriptor to a name that the kernel made up",
        _AUTOBOUND + "fd = os.open('.', os.O_RDONLY)\nhold(lambda: [b.send(b'bind'), a.recvmsg(99, 99)])\n" + _GUESS,
        _AUTOBOUND + "b.send(b'bind')\nuntil(lambda: a.recvmsg(99, 99)[1])",
        control=False,
    ),
    Pair(
        "a handle on its folder, by a datagram pair with an address",
        _IMPORT
        + "a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\nfd = os.open('.', os.O_RDONLY)\n"
        + _GUESS,
        _IMPORT
        + "a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\na.setsockopt(1, 16, 1)\na.settimeout(0.05)\n"
        "def got():\n return any(kind == 1 for _, kind, _ in a.recvmsg(99, 999)[1])\n"
        "until(got)",
        control=False,
    ),
    Pair(
        "a process handle from a socket",
        _IMPORT + "hold()",
        _IMPORT + "a, b = socket.socketpair()\nfd = a.getsockopt(1, 77)\nuntil(lambda: fd >= 0)",
        control=False,
    ),
    Pair(
        "a socket pair made before the fork",
        "pair[0].send(b'@WORD@')\nhold()",
        "pair[1].setblocking(False)\nuntil(lambda: pair[1].recv(99) == b'@WORD@')",
        before="import socket\npair = socket.socketpair()",
    ),
    Pair(
        "a pipe made before the fork",
        "os.write(ends[1], b'@WORD@')\nhold()",
        "os.set_blocking(ends[0], False)\nuntil(lambda: os.read(ends[0], 99) == b'@WORD@')",
        before="import os\nends = os.pipe()",
    ),
    Pair(
        "a counter of events made before the fork",
        "os.eventfd_write(counter, 7)\nhold()",
        "os.set_blocking(counter, False)\nuntil(lambda: os.eventfd_read(counter) == 7)",
        before="import os\ncounter = os.eventfd(0)",
    ),
]
