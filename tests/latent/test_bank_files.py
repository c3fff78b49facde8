"""A bank's file: exact, complete, versioned, and refused by name when it is not ours."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lapha.geometry import PolarPoints
from lapha.latent import LatentBank

D = 8
METADATA = {"format": "lapha.LatentBank", "version": "1", "curvature": "1.0", "dim": str(D)}


def filled(size: int = 50, dtype: torch.dtype = torch.float32) -> tuple[LatentBank, PolarPoints]:
    generator = torch.Generator().manual_seed(0)
    points = PolarPoints.from_tangent(torch.randn(size, D, generator=generator), 1.0)
    bank = LatentBank(D, dtype=dtype)
    for index in range(size):
        bank.append(points[index], (5, -2, 9)[index % 3])
    return bank, points


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("block", [7, 16384])
def test_a_saved_bank_comes_back_bit_for_bit(
    dtype: torch.dtype, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lapha.latent._bank_files.BLOCK_ROWS", block)
    bank, points = filled(dtype=dtype)
    bank.offload(9)
    path = tmp_path / "bank.safetensors"
    bank.save(path)
    again = LatentBank.from_file(path)
    assert (again.dim, again.curvature, again.dtype) == (D, 1.0, dtype)
    assert again.tree_ids == bank.tree_ids == [5, -2, 9]
    assert torch.equal(again[range(50)].direction, points.direction.to(dtype))
    assert torch.equal(again[range(50)].radius, points.radius)
    for tree in bank.tree_ids:
        assert torch.equal(again.ids(tree), bank.ids(tree))
        assert torch.equal(again.segment(tree).direction, bank.segment(tree).direction)
    assert again.append(points[:2], 5).tolist() == [50, 51]


def test_an_empty_bank_can_be_saved(tmp_path: Path) -> None:
    LatentBank(D, 0.25).save(tmp_path / "empty")
    again = LatentBank.from_file(tmp_path / "empty")
    assert (len(again), again.curvature, again.tree_ids) == (0, 0.25, [])


def test_the_file_is_plain_safetensors_with_row_i_being_id_i(tmp_path: Path) -> None:
    bank, points = filled()
    path = tmp_path / "bank.safetensors"
    bank.save(path)
    tensors = load_file(path)
    assert torch.equal(tensors["direction"], points.direction)
    assert torch.equal(tensors["radius"], points.radius)
    assert tensors["tree_id"].tolist() == [(5, -2, 9)[index % 3] for index in range(50)]
    with safe_open(path, framework="pt") as file:
        told = {key: value for key, value in file.metadata().items() if not key.startswith("crc32")}
    assert told == METADATA | {"version": "2"}


def test_saving_replaces_a_file_as_a_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "bank.safetensors"
    path.write_bytes(b"old")
    filled()[0].save(path)
    assert len(LatentBank.from_file(path)) == 50
    assert [entry.name for entry in tmp_path.iterdir()] == ["bank.safetensors"]


def test_an_interrupted_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bank.safetensors"
    small, _ = filled(5)
    small.save(path)
    bank, _ = filled(50)
    monkeypatch.setattr("lapha.latent._bank_files.BLOCK_ROWS", 10)
    calls = []
    gather = bank.__class__._points

    def interrupted(self, *rows):
        calls.append(1)
        if len(calls) > 3:
            raise KeyboardInterrupt
        return gather(self, *rows)

    monkeypatch.setattr(LatentBank, "_points", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bank.save(path)
    monkeypatch.undo()
    assert len(LatentBank.from_file(path)) == 5
    assert [entry.name for entry in tmp_path.iterdir()] == ["bank.safetensors"]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.999])
def test_a_truncated_file_is_refused_by_name(share: float, tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    filled()[0].save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"^path: expected a complete safetensors file, got .*cut\.safetensors"):
        LatentBank.from_file(path)


def _tensors(**changed: torch.Tensor) -> dict[str, torch.Tensor]:
    bank, points = filled(4)
    tensors = {"direction": points.direction, "radius": points.radius, "tree_id": torch.tensor([0, 0, 1, 0])}
    assert len(bank) == 4
    return {**tensors, **changed}


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        ({"weight": torch.ones(3)}, {}, "expected a lapha.LatentBank file"),
        ({"weight": torch.ones(3)}, {"format": "lapha.ValueHead", "version": "1"}, "format lapha.ValueHead"),
        (_tensors(), METADATA | {"version": "3"}, "of version 3"),
        ({"direction": torch.ones(3)}, METADATA, "with tensors"),
        (_tensors(), {"format": "lapha.LatentBank", "version": "1"}, "with its metadata"),
        (_tensors(), METADATA | {"dim": "9"}, "4 rows of dimension 9"),
        (_tensors(radius=torch.ones(3)), METADATA, "4 rows of dimension 8"),
        (_tensors(radius=torch.tensor([1.0, 1.0, float("nan"), 1.0])), METADATA, "valid latents.*row 2"),
        (_tensors(direction=torch.ones(4, D)), METADATA, "valid latents.*unit"),
        (_tensors(direction=torch.ones(4, D, dtype=torch.int32)), METADATA, "float32, bfloat16 or float16"),
        (_tensors(tree_id=torch.ones(4)), METADATA, "tree_id"),
        (_tensors(radius=torch.ones(4, dtype=torch.float64)), METADATA, "radius"),
    ],
)
def test_a_foreign_file_is_refused_by_name(tensors: dict, metadata: dict, message: str, tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file(tensors, path, metadata)
    with pytest.raises(ValueError, match=r"^path: .*foreign\.safetensors") as error:
        LatentBank.from_file(path)
    assert error.match(message)


def test_a_header_that_promises_too_much_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "huge.safetensors"
    path.write_bytes(struct.pack("<Q", 2**60) + b"{}")
    with pytest.raises(ValueError, match=r"^path: .*huge"):
        LatentBank.from_file(path)


def test_paths_that_cannot_be_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^path: expected a file that exists"):
        LatentBank.from_file(tmp_path / "absent")
    with pytest.raises(ValueError, match=r"^path: expected a file in an existing folder"):
        filled()[0].save(tmp_path / "absent" / "bank")
