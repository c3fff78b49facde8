"""Messages between lapha, the supervisor and the processes of the jail: a kind, and fields by a schema.

A message is its kind and its fields in the schema's order, each a 32-bit length and so many bytes. Nothing in one is
evaluated, imported or unpickled, and nothing is believed: a length beyond the end, a byte too many, a field of another
type, an unknown kind make the whole message `Garbled`. Text is UTF-8; what cannot be encoded (lone surrogates) is
written as ``\\udc80``, what cannot be decoded becomes U+FFFD, in every field, so that text is always text.

Standard library only: this file is loaded inside the jail too.
"""

import math
import struct

TEXT, MAYBE, BYTES, INT, FLOAT, NUMBERS = "text", "text or nothing", "bytes", "integer", "number", "named numbers"

FROM_GUEST = {
    "ready": {},
    "home": {},
    "parent": {},
    "child": {},
    "result": {"outcome": TEXT, "output": TEXT, "value": MAYBE, "error": MAYBE, "files": BYTES},
}
TO_GUEST = {
    "fork": {},
    "leave": {},
    "grow": {"size": INT},
    "huge": {"ranges": BYTES},
    "run": {"code": TEXT, "output_bytes": INT, "file_bytes": INT, "files": BYTES},
}

TO_SUPERVISOR = {
    "open": {"session": INT},
    "fork": {"session": INT, "of": INT},
    "close": {"session": INT},
    "run": {"id": INT, "session": INT, "code": TEXT},
    "describe": {"id": INT},
}
TO_LAPHA = {
    "ready": {},
    "failed": {"reason": TEXT},
    "result": {"id": INT, "outcome": TEXT, "output": TEXT, "value": MAYBE, "error": MAYBE, "seconds": FLOAT},
    "description": {"id": INT, "counters": NUMBERS, "gauges": NUMBERS},
}

_LENGTH = struct.Struct("=I")
_INT = struct.Struct("=q")
_FLOAT = struct.Struct("=d")


class Garbled(ValueError):
    """These bytes are no message."""


def text(data):
    """Bytes as text that UTF-8 can hold."""
    return data.decode("utf-8", "replace")


def cut(value, limit, sign="…"):
    """A text, or as much of it as fits into so many bytes of UTF-8, and a sign that it is cut."""
    encoded = _write_text(value)
    if len(encoded) <= limit + len(sign.encode()):
        return text(encoded)
    return encoded[:limit].decode("utf-8", "ignore") + sign


def pack(parts):
    """Byte strings, one after another, each with its length."""
    return b"".join(piece for part in parts for piece in (_LENGTH.pack(len(part)), part))


def unpack(data):
    """The byte strings of `pack`.

    Raises:
        Garbled: a length beyond the end.
    """
    parts, place = [], 0
    while place < len(data):
        start = place + _LENGTH.size
        if start > len(data):
            raise Garbled("a message ends within a length")
        place = start + _LENGTH.unpack_from(data, start - _LENGTH.size)[0]
        if place > len(data):
            raise Garbled("a message ends within a field")
        parts.append(data[start:place])
    return parts


def encode(schema, kind, **fields):
    """A message as bytes.

    Raises:
        KeyError: the schema has no such kind, or the kind such a field.
    """
    return pack([kind.encode(), *(_WRITE[form](fields[name]) for name, form in schema[kind].items())])


def decode(schema, data):
    """A message's kind and fields.

    Raises:
        Garbled: these bytes are none of the schema's messages.
    """
    head, *parts = unpack(data) or [b""]
    kind = text(head)
    forms = schema.get(kind)
    if forms is None or len(forms) != len(parts):
        raise Garbled("an unknown kind of message, or another number of fields")
    return kind, {name: _READ[form](part) for (name, form), part in zip(forms.items(), parts)}


def _write_text(value):
    return value.encode("utf-8", "backslashreplace")


def _read_fixed(form, part):
    if len(part) != form.size:
        raise Garbled("a number of another size")
    return form.unpack(part)[0]


def _read_float(part):
    value = _read_fixed(_FLOAT, part)
    if not math.isfinite(value):
        raise Garbled("a number that is not finite")
    return value


def _read_maybe(part):
    if part[:1] not in (b"", b"+"):
        raise Garbled("text or nothing, and it is neither")
    return text(part[1:]) if part else None


def _read_numbers(part):
    parts = unpack(part)
    if len(parts) % 2:
        raise Garbled("a name without a number")
    return {text(name): _read_float(value) for name, value in zip(parts[::2], parts[1::2])}


_WRITE = {
    TEXT: _write_text,
    MAYBE: lambda value: b"" if value is None else b"+" + _write_text(value),
    BYTES: bytes,
    INT: _INT.pack,
    FLOAT: _FLOAT.pack,
    NUMBERS: lambda value: pack([part for name, x in value.items() for part in (name.encode(), _FLOAT.pack(x))]),
}
_READ = {
    TEXT: text,
    MAYBE: _read_maybe,
    BYTES: bytes,
    INT: lambda part: _read_fixed(_INT, part),
    FLOAT: _read_float,
    NUMBERS: _read_numbers,
}


def frame(message):
    """A message for a stream, with its length in front."""
    return _LENGTH.pack(len(message)) + message


def take_frame(buffer, most):
    """The first whole message of a stream's bytes, removed from them; None if there is none yet.

    Raises:
        Garbled: it claims to be longer than `most` bytes.
    """
    if len(buffer) < _LENGTH.size:
        return None
    size = _LENGTH.unpack_from(buffer)[0]
    if size > most:
        raise Garbled(f"a message of {size} bytes, and at most {most} are allowed")
    end = _LENGTH.size + size
    if len(buffer) < end:
        return None
    message = bytes(buffer[_LENGTH.size : end])
    del buffer[:end]
    return message
