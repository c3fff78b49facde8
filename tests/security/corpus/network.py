"""Reaching anything over a socket."""

from __future__ import annotations

from . import ENDS, Program


def reaches(name: str, code: str, control: bool = True) -> Program:
    return Program(name, f"{code}\nprint('ESCAPED')", ENDS, control)


def opens(name: str, family: int, kind: int, protocol: int = 0, control: bool = False) -> Program:
    return reaches(name, f"import socket\nsocket.socket({family}, {kind}, {protocol})", control)


PROGRAMS = [
    reaches("connect by TCP", "import socket\nsocket.create_connection(('127.0.0.1', @PORT@), 2)"),
    reaches("connect by TCP, IPv6", "import socket\nsocket.socket(socket.AF_INET6)"),
    reaches("send by UDP", "import socket\nsocket.socket(2, 2).sendto(b'x', ('127.0.0.1', @PORT@))"),
    reaches("connect to a socket file", "import socket\nsocket.socket(socket.AF_UNIX).connect('@UNIX@')"),
    reaches("connect to an abstract socket", "import socket\nsocket.socket(socket.AF_UNIX).connect('\\0@ABSTRACT@')"),
    reaches(
        "fetch by urllib", "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:@PORT@', timeout=2).read()"
    ),
    reaches(
        "fetch by http.client",
        "import http.client\nc = http.client.HTTPConnection('127.0.0.1', @PORT@, timeout=2)\nc.request('GET', '/')",
    ),
    reaches("serve by socketserver", "import socketserver\nsocketserver.TCPServer(('127.0.0.1', 0), None)"),
    reaches("serve by http.server", "import http.server\nhttp.server.HTTPServer(('127.0.0.1', 0), None)"),
    reaches(
        "connect by asyncio",
        "import asyncio\nasyncio.run(asyncio.wait_for(asyncio.open_connection('127.0.0.1', @PORT@), 2))",
    ),
    reaches("look up a name", "import socket\nsocket.getaddrinfo('localhost', 80)"),
    reaches("mail", "import smtplib\nsmtplib.SMTP(timeout=0.5).connect('127.0.0.1', @PORT@)", control=False),
    reaches("log to syslog", "import logging.handlers\nlogging.handlers.SysLogHandler(('127.0.0.1', @PORT@))"),
    reaches("connect by libc", "import ctypes\nassert ctypes.CDLL(None).socket(2, 1, 0) >= 0"),
    reaches("connect by system call", "import ctypes\nassert ctypes.CDLL(None).syscall(41, 2, 1, 0) >= 0"),
    reaches(
        "connect by 32-bit system call",
        "import ctypes, mmap\n"
        "code = bytes.fromhex('b866010000bb01000000b900000000cd80c3')\n"  # socketcall through int 0x80
        "page = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=7)\npage.write(code)\n"
        "address = ctypes.addressof(ctypes.c_char.from_buffer(page))\n"
        "assert ctypes.CFUNCTYPE(ctypes.c_int)(address)() >= 0",
        control=False,
    ),
    opens("a raw socket", 2, 3, 1, control=True),
    opens("a packet socket", 17, 3),
    opens("a netlink socket", 16, 3, control=True),
    opens("a kernel crypto socket", 38, 5),
    opens("a virtual machine socket", 40, 1),
    opens("a bluetooth socket", 31, 3),
    reaches(
        "a socket by io_uring",
        "import ctypes\nassert ctypes.CDLL(None).syscall(425, 4, bytes(200)) >= 0",
        control=False,
    ),
]
PROGRAMS = [Program(p.name, p.code, p.ends | {"crashed"}, p.control) if "32-bit" in p.name else p for p in PROGRAMS]
