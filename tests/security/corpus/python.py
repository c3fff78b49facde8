"""Walking around inside Python: the jail's own program, object walks, imports, forged results, native code."""

from __future__ import annotations

from lapha.sandbox.jail import wire

from . import ANY, ENDS, Program

DIES = ENDS | {"crashed", "timeout", "cpu"}

# what a walk that has reached the os module then tries
_SHELL = "assert system('true') == 0\nprint('ESCAPED')"


def walks(name: str, code: str, control: bool = True) -> Program:
    return Program(name, f"{code}\n{_SHELL}", DIES, control)


def says(message: str) -> str:
    """Hand the supervisor a message of one's own."""
    return f"import ctypes, os\nos.closerange(0, 64)\nm = {message}\nlibc = ctypes.CDLL(None)\nbuffer = ctypes.create_string_buffer(1 << 20)\nlibc.syscall(6810, m, ctypes.c_long(len(m)), buffer, ctypes.c_long(1 << 20))"


def result(**fields) -> str:
    """A message that looks like the jail's own."""
    given = {"outcome": "ok", "output": "forged", "value": None, "error": None, "files": b""} | fields
    return repr(wire.encode(wire.FROM_GUEST, "result", **given))


_FORGED = result()

PROGRAMS = [
    walks("walk by subclasses", "system = [c for c in ().__class__.__base__.__subclasses__() if c.__name__ == '_wrap_close'][0].__init__.__globals__['system']"),
    walks("walk by a function's globals", "import functools\nsystem = functools.__dict__['namedtuple'].__globals__['_sys'].modules['os'].system"),
    walks("walk by builtins", "system = __builtins__['__import__']('os').system if isinstance(__builtins__, dict) else __builtins__.__import__('os').system"),
    walks("walk by frames", "import sys\nf = sys._getframe()\nwhile f.f_back: f = f.f_back\nsystem = f.f_builtins['__import__']('os').system"),
    walks("walk by garbage", "import gc\nsystem = next(o for o in gc.get_objects() if type(o) is dict and o.get('__name__') == 'os')['system']"),
    walks("walk by an exception", "try: 1 / 0\nexcept Exception as e: system = e.__traceback__.tb_frame.f_builtins['__import__']('os').system"),
    walks("walk by a loader", "import importlib.util as u\ns = u.find_spec('posix')\nsystem = u.module_from_spec(s).system"),
    walks("walk by codecs", "import codecs\nsystem = codecs.sys.modules['os'].system"),
    walks("walk by sys.modules", "import sys\ndel sys.modules['os']\nimport os\nsystem = os.system"),
    walks("import by name", "system = __import__('o' + 's').system"),
    walks("import by eval", "system = eval('__import__(\"os\")').system"),
    walks("import a module of its own", "open('mine.py', 'w').write('from os import system')\nimport sys\nsys.path.insert(0, '.')\nfrom mine import system"),
    walks("import by reload", "import importlib, os\nsystem = importlib.reload(os).system"),
    walks("unpickle", "import pickle\nsystem = pickle.loads(b'cos\\nsystem\\n.')"),
    walks("compile its own code object", "exec(compile('from os import system', 'x', 'exec'))"),
    Program("call the shell by libc", "import ctypes\nprint('ESCAPED' if ctypes.CDLL(None).system(b'true') == 0 else 'no')", DIES, True),
    Program("call a loaded library", "import ctypes.util\nctypes.CDLL('libutil.so.1').forkpty\nprint('no')", DIES),
    Program("write native code", "import ctypes, mmap\np = mmap.mmap(-1, 4096, flags=34, prot=7)\np.write(bytes.fromhex('b8390000000f05c3'))\n"
            "r = ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(p)))()\nprint('ESCAPED' if r >= 0 else 'no')", DIES),
    Program("load a library of its own", "import ctypes\nopen('x.so', 'wb').write(b'\\x7fELF' + bytes(99))\nctypes.CDLL('./x.so')\nprint('ESCAPED')", DIES),
    Program("read nothing", "import ctypes\nctypes.string_at(0)", DIES),
    Program("write nowhere", "import ctypes\nctypes.memset(0, 1, 1)", DIES),
    Program("overwrite an object", "import ctypes\nctypes.memset(id(None), 0, 16)", DIES),
    Program("run broken byte code", "def f(): pass\nf.__code__ = f.__code__.replace(co_code=b'd\\xff' * 9, co_stacksize=0)\nf()", DIES),
    Program("give the interpreter up", "import os\nos.abort()", DIES),
    Program("leave at once", "import os\nos._exit(0)", DIES),
    Program("leave", "raise SystemExit(3)"),
    Program("interrupt itself", "raise KeyboardInterrupt"),
    Program("leave at exit", "import atexit\natexit.register(print, 'bye')\nimport os\nos._exit(7)", DIES),
    Program("close every file", "import os\nos.closerange(0, 300)", ENDS | {"files", "crashed"}),
    Program("close standard input", "import sys, os\nos.close(0)", ENDS | {"files"}),
    Program("replace standard output", "import sys, io\nsys.stdout = io.StringIO()\nprint('lost')"),
    Program("break json", "import json\njson.dumps = None", DIES),
    Program("break everything", "import sys\nfor m in list(sys.modules.values()):\n for n in list(vars(m)):\n  try: setattr(m, n, None)\n  except BaseException: pass", ANY),
    Program("replace the jail's own functions", "import sys\nf = sys._getframe()\nwhile f.f_back: f = f.f_back\nfor n in ('run', 'exchange', 'execute'): f.f_globals[n] = None", DIES),
    Program("serve itself for ever", "import sys\nf = sys._getframe()\nwhile f.f_back: f = f.f_back\ng = f.f_globals\ng['serve'](4096)", ANY),
    Program("trace everything", "import sys\nsys.settrace(lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))", DIES),
    Program("profile everything", "import sys\nsys.setprofile(lambda *a: 1 / 0)\nlen('')", DIES),
    Program("audit everything", "import sys\nsys.addaudithook(lambda *a: 1 / 0)\nopen('x')", DIES),
    Program("a result of its own making", says(_FORGED), ANY),
    Program("a result of its own making, and on", says(_FORGED) + "\nwhile True: pass", ANY),
    Program("a result that is no message", says("b'{{{{'"), frozenset({"crashed"})),
    Program("a result that is empty", says("b''"), frozenset({"crashed"})),
    Program("a result without a field", says(repr(wire.pack([b"result", b"ok"]))), frozenset({"crashed"})),
    Program("a result with a field too many", says(repr(wire.pack([b"result", b"ok", b"", b"", b"", b"", b""]))), frozenset({"crashed"})),
    Program("a result with a length beyond its end", says(_FORGED + "[:-3] + b'\\xff\\xff\\xff'"), frozenset({"crashed"})),
    Program("a result with an outcome of its own", says(result(outcome="fine")), frozenset({"crashed"})),
    Program("a result with files that are none", says(result(files=b"\xff" * 99)), ANY),
    Program("a result with files above it", says(result(files=wire.pack([b"../../escaped", b"+x", b"/escaped", b"+x"]))), ANY),
    Program("a result with more files than allowed", says("(lambda n: b'\\x06\\0\\0\\0result\\2\\0\\0\\0ok' + bytes(12) + n.to_bytes(4, 'little') + bytes(n))(8 << 20)"), frozenset({"files", "crashed"})),
    Program("a result longer than the output may be", says(result(output="x" * 30_000)), ANY),
    Program("a result that nests deep", says("b'[' * 100000"), frozenset({"crashed"})),
    Program("a result too large", says("b' ' * (1 << 23)"), frozenset({"crashed"})),
    Program("a result that is nowhere", "import ctypes\nctypes.CDLL(None).syscall(6810, ctypes.c_void_p(8), ctypes.c_long(99), ctypes.c_void_p(8), ctypes.c_long(99))", frozenset({"crashed"})),
    Program("a result of negative length", "import ctypes\nctypes.CDLL(None).syscall(6810, b'x', ctypes.c_long(-1), 0, 0)", frozenset({"crashed"})),
    Program("a claim to be a newborn", says(repr(wire.encode(wire.FROM_GUEST, "child"))), frozenset({"crashed"})),
    Program("a claim to have come home", says(repr(wire.encode(wire.FROM_GUEST, "home"))), frozenset({"crashed"})),
    Program("a claim to be ready", says(repr(wire.encode(wire.FROM_GUEST, "ready"))), frozenset({"crashed"})),
]  # fmt: skip
