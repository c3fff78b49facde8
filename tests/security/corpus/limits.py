"""Using up time, memory and output. Nothing here escapes; each must end by its limits, and hurt nobody else."""

from __future__ import annotations

from . import ANY, ENDS, Program

TIME = frozenset({"timeout", "cpu"})
# the interpreter reports most of these as MemoryError, but may die, or be too slow to reach the limit
MEMORY = frozenset({"memory", "crashed", "timeout", "cpu", "error"})
OUTPUT = frozenset({"output", "timeout", "cpu"})

_SLOW = {
    "loop": "while True: pass",
    "loop over itertools": "import itertools\nfor _ in itertools.count(): pass",
    "loop inside C": "sum(range(10**13))",
    "loop that catches everything": "while True:\n try:\n  while True: pass\n except BaseException: pass",
    "sleep": "import time\ntime.sleep(1000)",
    "sleep in asyncio": "import asyncio\nasyncio.run(asyncio.sleep(1000))",
    "wait for a lock": "import threading\nthreading.Lock().acquire()\nl = threading.Lock()\nl.acquire()\nl.acquire()",
    "wait for an event": "import threading\nthreading.Event().wait()",
    "wait for a queue": "import queue\nqueue.Queue().get()",
    "wait for a pipe": "import os\nr, w = os.pipe()\nos.read(r, 1)",
    "wait for a socket pair": "import socket\na, b = socket.socketpair()\na.recv(1)",
    "catastrophic regular expression": "import re\nre.match(r'(a+)+$', 'a' * 60 + 'b')",
    "huge power": "x = 7 ** (10 ** 8)",
    "huge power of powers": "x = 9 ** 9 ** 9",
    "huge factorial": "import math\nx = math.factorial(10 ** 8)",
    "repr that never ends": "class A:\n def __repr__(self):\n  while True: pass\nA()",
    "error message that never ends": "class E(Exception):\n def __str__(self):\n  while True: pass\nraise E",
    "finaliser that never ends": "class A:\n def __del__(self):\n  while True: pass\ndel (lambda a: a)(A()).__class__\nA()",
    "loop in native code": "import ctypes, mmap\npage = mmap.mmap(-1, 4096, flags=34, prot=7)\npage.write(bytes([0xEB, 0xFE]))\n"
    "ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()",
    "huge symbolic expansion": "from sympy import *\nx, y, z, w = symbols('x y z w')\nexpand((x + y + z + w) ** 400)",
    "huge factorisation": "from sympy import *\nfactorint(nextprime(10**40) * nextprime(10**41))",
}  # fmt: skip

_BIG = {
    "grow a list": "x = []\nwhile True: x.append('a' * 1000)",
    "grow a string": "x = 'a'\nwhile True: x += x",
    "grow a dictionary": "x = {}\nwhile True: x[len(x)] = object()",
    "one huge list": "x = [0] * 10**10",
    "one huge string": "x = 'a' * 10**11",
    "one huge bytearray": "x = bytearray(10**11)",
    "one huge array": "import numpy as np\nx = np.ones(10**10)",
    "huge arrays, one after another": "import numpy as np\nx = []\nwhile True: x.append(np.ones(10**6))",
    "huge product": "import numpy as np\nx = np.ones((20000, 20000)) @ np.ones((20000, 20000))",
    "memory from C": "import ctypes\nl = ctypes.CDLL(None)\nl.calloc.restype = ctypes.c_void_p\n"
    "while True:\n p = l.calloc(1, 1 << 24)\n if not p: raise MemoryError\n ctypes.memset(p, 1, 1 << 24)",
    "memory maps": "import mmap\nx = []\nwhile True:\n m = mmap.mmap(-1, 1 << 24, flags=34); m.write(bytes(1 << 24)); x.append(m)",
    "a range as a list": "x = list(range(10**10))",
    "nested generators": "def f(n): yield from f(n + 1)\nx = list(f(0))",
    "zlib bomb": "import zlib\nb = zlib.compressobj()\ns = b''.join(b.compress(bytes(1 << 20)) for _ in range(700)) + b.flush()\nx = zlib.decompress(s)",
    "gzip bomb": "import gzip\nx = gzip.compress(bytes(1 << 27))\nwhile True: x = gzip.compress(gzip.decompress(x) * 4)",
    "bz2 bomb": "import bz2\nc = bz2.BZ2Compressor(1)\ns = c.compress(bytes(1 << 25)) + c.flush()\nx = [bz2.decompress(s) for _ in range(99)]",
    "lzma bomb": "import lzma\ns = lzma.compress(bytes(1 << 24), preset=0)\nx = [lzma.decompress(s) for _ in range(999)]",
    "zip bomb": "import io, zipfile\nb = io.BytesIO()\nz = zipfile.ZipFile(b, 'w', 8)\nz.writestr('a', bytes(1 << 26))\nz.close()\nx = [zipfile.ZipFile(b).read('a') for _ in range(99)]",
    "XML bomb": "import xml.etree.ElementTree as e\nd = '<!DOCTYPE l [<!ENTITY a0 \"' + 'x' * 10**5 + '\">'\nfor i in range(1, 9): d += f'<!ENTITY a{i} \"' + f'&a{i - 1};' * 10 + '\">'\ne.fromstring(d + ']><l>&a8;</l>')",
    "string formatting": "x = '%1000000000000d' % 1",
    "huge decimal": "import decimal\ndecimal.getcontext().prec = 10**9\nx = 1 / decimal.Decimal(7)",
    "product of lists": "import itertools\nx = list(itertools.product(range(1000), repeat=4))",
}  # fmt: skip

_DEEP = {
    "regular expression bomb": "import re\nre.compile('(' * 50 + 'a' + '{1,1000})' * 50).match('a' * 99)",
    "recursion": "def f(): return f()\nf()",
    "recursion without Python's limit": "import sys\nsys.setrecursionlimit(10**9)\ndef f(): return f()\nf()",
    "recursion in C": "import sys\nsys.setrecursionlimit(10**9)\nx = []\nfor _ in range(10**6): x = [x]\nrepr(x)",
    "recursion in the parser": "eval('(' * 10**5 + ')' * 10**5)",
    "recursion in the compiler": "import sys\nsys.setrecursionlimit(10**9)\neval('-' * 10**6 + '1')",
    "recursion in JSON": "import json, sys\nsys.setrecursionlimit(10**9)\njson.loads('[' * 10**6)",
    "recursion in pickle": "import pickle, sys\nsys.setrecursionlimit(10**9)\nx = []\nfor _ in range(10**6): x = [x]\npickle.dumps(x)",
    "recursion in copying": "import copy\nx = []\nfor _ in range(10**5): x = [x]\ncopy.deepcopy(x)",
}  # fmt: skip

_LOUD = {
    "print for ever": "while True: print('a' * 100)",
    "print one giant": "print('a' * 10**7)",
    "print to standard error for ever": "import sys\nwhile True: print('a' * 100, file=sys.stderr)",
    "write bytes for ever": "import sys\nwhile True: sys.stdout.buffer.write(b'\\xff' * 100)",
    "log for ever": "import logging\nwhile True: logging.error('a' * 100)",
    "warn for ever": "import warnings\nwarnings.simplefilter('always')\nwhile True: warnings.warn('a' * 100)",
    "help for ever": "import pprint\nwhile True: pprint.pprint(list(range(1000)))",
    "print for ever and catch the complaint": "while True:\n try:\n  while True: print('a' * 100)\n except BaseException: pass",
    "trace for ever": "import traceback\nwhile True:\n try: 1 / 0\n except Exception: traceback.print_exc()",
}  # fmt: skip

PROGRAMS = [
    *(Program(name, code, TIME | {"memory", "crashed"}) for name, code in _SLOW.items()),
    *(Program(name, code, MEMORY) for name, code in _BIG.items()),
    *(Program(name, code, ENDS | {"memory", "crashed", "cpu", "timeout"}) for name, code in _DEEP.items()),
    *(Program(name, code, OUTPUT) for name, code in _LOUD.items()),
    Program(
        "write to the file descriptors for ever",
        "import os\nwhile True:\n for fd in (1, 2): os.write(fd, b'a' * 999)",
        TIME,
    ),
    Program("a giant value", "'a' * 10**7", ENDS | {"timeout"}),
    Program("a giant error", "raise ValueError('a' * 10**7)", ENDS | {"timeout"}),
    Program("an error with a giant traceback", "def f(n):\n if n: f(n - 1)\n raise ValueError('a' * 999)\nf(900)"),
    Program("a chain of errors", "e = None\nfor i in range(500):\n n = ValueError(i); n.__cause__ = e; e = n\nraise e"),
    Program("bytes that are no text", "import sys\nsys.stdout.buffer.write(bytes(range(256)))"),
    Program("surrogates", "print('\\ud800', chr(0xDFFF))\n'\\udcff'"),
    Program("terminal control sequences", "print('\\x1b[2J\\x1b]0;x\\x07\\x9b31m')"),
    Program("pipes for ever", "import os\nx = []\nwhile True: x.append(os.pipe())", ANY),
    Program("open files for ever", "x = []\nwhile True: x.append(open('/dev/null'))", ANY),
    Program(
        "full pipes",
        "import os\nfor _ in range(100):\n r, w = os.pipe()\n os.set_blocking(w, False)\n os.write(w, bytes(65536))",
        ANY,
    ),
]
