"""Things on this machine that no program in a sandbox may read, write, reach or stop."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import socket
import subprocess
import sys
import threading
from pathlib import Path

from lapha.sandbox.jail import walls

_ANSWER = b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi"


class Canaries:
    """Made before the sandbox starts; `harm` says afterwards what has been done to them."""

    def __init__(self, folder: Path) -> None:
        self.secret = f"canary-{secrets.token_hex(8)}"
        self.nonce = secrets.token_hex(8)
        self.folder = folder
        self.file = folder / "secret" / f"note-{self.nonce}.txt"
        self.outside = folder / "outside"
        self.outside.mkdir()
        self.file.parent.mkdir()
        self.file.write_text(self.secret)
        os.environ["LAPHA_CANARY"] = self.secret
        self.victim = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        self.reached = 0
        self._listeners = [self._listen(socket.AF_INET, ("127.0.0.1", 0))]
        self.port = self._listeners[0].getsockname()[1]
        self.port6 = self.port
        with contextlib.suppress(OSError):  # a machine without IPv6 has nobody to reach there
            self._listeners.append(self._listen(socket.AF_INET6, ("::1", 0)))
            self.port6 = self._listeners[-1].getsockname()[1]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.free_port = free.getsockname()[1]
        self._listeners.append(self._listen(socket.AF_UNIX, str(folder / "socket")))
        self._listeners.append(self._listen(socket.AF_UNIX, f"\0lapha-{self.nonce}"))
        self._watched = [Path(json.__file__), Path(walls.__file__).with_name("guest.py"), self.file]
        self._before = self._hashes()

    def _listen(self, family: int, address) -> socket.socket:
        listener = socket.socket(family)
        listener.bind(address)
        listener.listen(50)

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                self.reached += 1
                with connection, contextlib.suppress(OSError):  # it may hang up first
                    connection.sendall(_ANSWER)

        threading.Thread(target=serve, daemon=True).start()
        return listener

    def fill(self, code: str) -> str:
        """Put this machine's canaries into a program."""
        words = {
            "WORD": "tell-" + self.nonce[:8],
            "SECRET": self.secret,
            "SECRET_FILE": self.file,
            "SECRET_NAME": self.file.name,
            "SECRET_PARENT": self.folder,
            "OUTSIDE": self.outside,
            "NONCE": self.nonce,
            "PORT": self.port,
            "PORT6": self.port6,
            "FREE_PORT": self.free_port,
            "UNIX": self.folder / "socket",
            "ABSTRACT": f"lapha-{self.nonce}",
            "VICTIM": self.victim.pid,
            "PREFIX": os.path.realpath(sys.base_prefix),
        }
        for word, value in words.items():
            code = code.replace(f"@{word}@", str(value))
        return code

    def _hashes(self) -> list[str]:
        return [hashlib.sha256(path.read_bytes()).hexdigest() for path in self._watched]

    def harm(self) -> list[str]:
        """What has been done to them; empty if nothing."""
        found = []
        if self._hashes() != self._before:
            found.append("a file was changed")
        places = [self.outside, Path("/tmp"), Path("/dev/shm"), Path("/"), Path("/usr/lib")]
        for path in (path for place in places for path in place.iterdir()):
            if path.parent == self.outside or self.nonce in path.name or path.name == "escaped":
                found.append(f"a file was written: {path}")
        if self.reached:
            found.append(f"a socket was reached {self.reached} times")
        if self.victim.poll() is not None:
            found.append("a process was killed")
        return found

    def close(self) -> None:
        os.environ.pop("LAPHA_CANARY", None)
        for listener in self._listeners:
            listener.close()
        self.victim.kill()
        self.victim.wait()
        for place in ("/tmp", "/var/tmp", "/dev/shm", Path.home()):
            for path in Path(place).glob(f"*{self.nonce}*"):
                path.unlink()
