"""Messages: what is encoded comes back, and no bytes do anything but come back or be `Garbled`."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapha.sandbox.jail import wire

SCHEMAS = (wire.FROM_GUEST, wire.TO_GUEST, wire.TO_SUPERVISOR, wire.TO_LAPHA)
CALM = settings(derandomize=True, deadline=None, max_examples=200, database=None)
_TEXT = st.text(st.characters(exclude_categories=()))  # lone surrogates too
VALUES = {
    wire.TEXT: _TEXT,
    wire.MAYBE: st.none() | _TEXT,
    wire.BYTES: st.binary(),
    wire.INT: st.integers(-(2**63), 2**63 - 1),
    wire.FLOAT: st.floats(allow_nan=False, allow_infinity=False),
    wire.NUMBERS: st.dictionaries(st.text("abc_"), st.floats(allow_nan=False, allow_infinity=False)),
}


def shown(value):
    """What a text comes back as."""
    if isinstance(value, dict):
        return value
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


@pytest.mark.parametrize(("schema", "kind"), [(schema, kind) for schema in SCHEMAS for kind in schema])
def test_every_message_comes_back(schema, kind):
    @CALM
    @given(st.fixed_dictionaries({name: VALUES[form] for name, form in schema[kind].items()}))
    def check(fields):
        got, back = wire.decode(schema, wire.encode(schema, kind, **fields))
        assert got == kind
        assert back == {name: shown(value) for name, value in fields.items()}

    check()


@pytest.mark.parametrize("schema", SCHEMAS)
def test_any_bytes_are_a_message_or_garbled(schema):
    @CALM
    @given(
        st.binary(max_size=300) | st.lists(st.sampled_from([k.encode() for k in schema]) | st.binary()).map(wire.pack)
    )
    def check(data):
        try:
            kind, fields = wire.decode(schema, data)
        except wire.Garbled:
            return
        assert set(fields) == set(schema[kind])
        for value in fields.values():
            if isinstance(value, str):
                value.encode()

    check()


def test_a_length_beyond_the_end_and_a_byte_too_many_are_garbled():
    message = wire.encode(wire.TO_SUPERVISOR, "run", id=1, session=2, code="x")
    for broken in (message[:-1], message + b"\0", message + wire.pack([b""]), b"", b"\xff" * 8):
        with pytest.raises(wire.Garbled):
            wire.decode(wire.TO_SUPERVISOR, broken)


def test_frames_are_taken_one_by_one_and_no_longer_than_allowed():
    buffer = bytearray(wire.frame(b"one") + wire.frame(b"two")[:5])
    assert wire.take_frame(buffer, 10) == b"one"
    assert wire.take_frame(buffer, 10) is None
    buffer += wire.frame(b"two")[5:]
    assert wire.take_frame(buffer, 10) == b"two"
    with pytest.raises(wire.Garbled, match="a message of 11 bytes, and at most 10 are allowed"):
        wire.take_frame(bytearray(wire.frame(bytes(11))), 10)
