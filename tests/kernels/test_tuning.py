"""Tile configurations: classes of shapes, candidates, and the file that remembers them."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from lapha.kernels import tuning
from lapha.kernels.tuning import TileConfig, cache_file, candidates, shape_class, tile_config


def test_shape_class_rounds_up_to_powers_of_two() -> None:
    assert shape_class(1, 2, 3, 1000, 1024, 1025) == (1, 2, 4, 1024, 1024, 2048)
    assert shape_class(0) == (1,)


def test_every_generation_has_candidates() -> None:
    for operation in ("pairwise", "nearest"):
        for precision in ("ieee", "tf32x3", "bf16"):
            for generation in (8, 9, 10, 12):
                options = candidates(operation, precision, generation)
                assert len(options) >= 1
                assert len(set(options)) == len(options)
                # halves and quarters of a tile's columns are still tiles, and second-pass tiles divide them
                assert all(o.block_n % 64 == 0 and o.block_m % 32 == 0 for o in options)
                # prepared rows are padded to 64
                assert all(64 % o.block_k == 0 for o in options)


def test_cache_survives_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAPHA_CACHE_DIR", str(tmp_path / "new"))
    chosen = {"pairwise/bf16/some device/1024/1024/1536": TileConfig(128, 64, 32, 4, 3)}
    tuning._write_cache(chosen)
    assert cache_file() == tmp_path / "new" / "tiles.json"
    assert tuning._read_cache() == chosen


@pytest.mark.parametrize("content", ["{not json", '{"a": {"block": 3}}', "[1, 2]"])
def test_a_broken_cache_is_ignored_and_said(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LAPHA_CACHE_DIR", str(tmp_path))
    cache_file().write_text(content)
    with caplog.at_level(logging.WARNING):
        assert tuning._read_cache() == {}
    assert "is ignored" in caplog.text


def test_a_folder_that_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LAPHA_CACHE_DIR", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        tuning._write_cache({})
    assert "cannot be kept" in caplog.text


def test_the_interpreter_has_its_own_tiles() -> None:
    def never(config: TileConfig) -> None:
        raise AssertionError("nothing to measure off CUDA")

    config = tile_config("pairwise", "bf16", (10, 10, 64), torch.device("cpu"), never)
    assert config.block_m == config.block_n == 32
