"""Moving pictures: what is seen when, in every format."""

import re
import xml.etree.ElementTree as ElementTree

import pytest

from lapha.viz import write_animation


def test_the_svg_shows_every_node_edge_and_text(picture, tmp_path):
    path = write_animation(picture, tmp_path / "a.svg", seconds=4)
    root = ElementTree.parse(path).getroot()
    space = "{http://www.w3.org/2000/svg}"
    assert len(root.findall(f"{space}polygon")) == len(picture.tree)
    assert len(root.findall(f"{space}path")) == len(picture.tree) - 1 + len(picture.tree.path(4)) - 1
    texts = ["".join(text.itertext()) for text in root.findall(f"{space}text")]
    assert texts == ["Which <number>?", "answer: <4> (right)"]


def test_nodes_appear_with_their_simulation_and_fade_when_pruned(picture, tmp_path):
    text = write_animation(picture, tmp_path / "a.svg", seconds=3).read_text()
    # simulation 1 of 3 in 3 of 6 seconds: a sixth of the film
    times = re.findall(r'<polygon[^>]*>.*?keyTimes="([\d.;]+)" values="([\d.;]+)"', text)
    assert times[0] == ("0;1", "1;1")  # the root is there from the start
    assert times[1][0].split(";")[1] == "0.1667"
    assert times[4][0].split(";")[1] == "0.5"
    assert times[6][1].endswith("0.12")  # pruned


def test_a_gif_has_frames_that_differ(picture, tmp_path):
    image_module = pytest.importorskip("PIL.Image")
    path = write_animation(picture, tmp_path / "a.gif", seconds=1)
    with image_module.open(path) as image:
        assert image.n_frames > 3
        assert image.size == (960, 720)
        first = image.convert("RGB").tobytes()
        image.seek(image.n_frames - 1)
        assert image.convert("RGB").tobytes() != first


def test_an_mp4_is_written_whole(picture, tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    path = write_animation(picture, tmp_path / "a.mp4", seconds=0.5)
    frames, seconds = ffmpeg.count_frames_and_secs(str(path))
    assert frames == int(25 * 3.5)
    assert seconds == pytest.approx(3.5, abs=0.1)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "seconds", "message"),
    [
        ("a.png", 4, "path suffix: expected"),
        ("a.svg", 0, "seconds: expected"),
        ("no/a.svg", 4, "path: expected a file"),
    ],
)
def test_bad_input_is_named(picture, tmp_path, name, seconds, message):
    with pytest.raises(ValueError, match=message):
        write_animation(picture, tmp_path / name, seconds=seconds)
