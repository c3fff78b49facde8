"""Public functions called with one argument of another kind: a right result, or a ValueError that names the argument."""

import inspect
import math
import warnings

import numpy as np
import pytest
import torch
from public_calls import CALLS, POINTS

JUNK = {
    "None": None, "a text": "x", "empty text": "", "bytes": b"x", "true": True, "a fraction": 1.5, "minus one": -1, "zero": 0,
    "huge": 2**70,  "NaN": math.nan, "infinity": math.inf, "a list": [], "a mapping": {}, "an object": object(),
    "a set": {1}, "nested lists": [[1], [2, 3]], "a text list": ["x"], "complex": 1j, "a numpy array": np.zeros(3),
    "an object array": np.array([None, 1], dtype=object), "a text array": np.array(["x"]), "scalar tensor": torch.tensor(1.0),
    "an empty tensor": torch.empty(0), "an integer tensor": torch.tensor([1, 2]), "NaN tensor": torch.full((6,), math.nan),
    "a bool tensor": torch.tensor([True]), "a long tensor": torch.zeros(1000), "a cube": torch.zeros(2, 2, 2),
    "a complex tensor": torch.zeros(6, dtype=torch.complex64), "other points": POINTS[:2], "a generator": (x for x in "ab"),
}  # fmt: skip


def outcome(call, arguments, name):
    """None where the call is as it should be, or what is wrong with it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call(**arguments)
    except ValueError as error:
        text = str(error)
        # of two shapes that do not fit, either may be named
        named = any(argument in text for argument in arguments) and "expected" in text and "got" in text
        return None if named else f"ValueError without {name}: {text[:150]}"
    except Exception as error:  # noqa: BLE001 (that nothing else comes is what is tested)
        return f"{type(error).__name__}: {str(error)[:150]}"
    return None


@pytest.mark.parametrize("name", CALLS)
def test_an_argument_of_another_kind_is_named_or_taken(name):
    call, valid = CALLS[name]
    call(**valid)
    wrong = {}
    for argument in valid:
        for kind, junk in JUNK.items():
            found = outcome(call, {**valid, argument: junk}, argument)
            if found is not None:
                wrong[f"{argument} = {kind}"] = found
    assert not wrong, "\n".join(f"{name}({what}): {found}" for what, found in wrong.items())


def test_the_calls_cover_the_public_list():
    import lapha

    functions = {n for n in lapha.__all__ if inspect.isfunction(getattr(lapha, n))}
    covered = {name.rpartition(".")[2] for name in CALLS}
    # they take records and whole trees: tests/shaping and tests/integrations have their arguments
    assert functions <= covered | {"shape_chains", "shape_rollouts"}
