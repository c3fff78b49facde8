"""A full disk, a read-only folder, too few descriptors: a message that names the file, and nothing that was there is lost."""

import errno
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def attempts(folder, how):
    command = [sys.executable, str(HERE / "failing_writes.py"), str(folder), how]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT, timeout=300)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def check_attempts(found, reason):
    assert len(found) == 10
    for report in found:
        kind, raised = report["kind"], report["raised"]
        assert raised is not None, f"{kind}: wrote more than there is room for"
        _, message, filename = raised
        assert reason in message, f"{kind}: {message}"
        assert filename is not None and filename.startswith(report["path"].rsplit(".", 1)[0]), f"{kind}: {message}"  # noqa: PT018
        assert ".partial" not in message, f"{kind}: {message}"
        assert not report["left"], f"{kind} leaves {report['left']}"
        assert report["after"] == report["before"] or kind in ("run folder", "metrics"), f"{kind} lost what was there"
        assert report["then"] != report["before"] or kind in ("metrics", "journal", "grades"), f"{kind} cannot go on"


def test_where_files_cannot_grow_each_writer_names_its_file_and_keeps_the_old_one(tmp_path):
    check_attempts(attempts(tmp_path, "limit"), os.strerror(errno.EFBIG))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount a file system here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_on_a_full_disk_each_writer_names_its_file_and_keeps_the_old_one(small_disk):
    check_attempts(attempts(small_disk, "disk"), os.strerror(errno.ENOSPC))


def test_on_a_read_only_file_system_each_place_is_refused_by_name(small_disk):
    from failing_writes import SMALL, bank, run_of, searched

    from lapha.latent import LatentBank

    bank(3).save(small_disk / "bank")
    run_of(small_disk / "run", 2)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for write, path in (
        (lambda p: bank(3).save(p), small_disk / "bank"),
        (lambda p: searched(SMALL).save(p), small_disk / "r.json"),
        (lambda p: run_of(p, 2), small_disk / "run"),
        (lambda p: run_of(p, 2), small_disk / "other"),
    ):
        with pytest.raises((ValueError, OSError), match=str(path if path.name != "r.json" else path.with_suffix(""))):
            write(path)
    assert len(LatentBank.from_file(small_disk / "bank")) == 3


def test_without_descriptors_a_save_names_its_file(tmp_path):
    from failing_writes import bank

    bank(3).save(tmp_path / "bank")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(int(name) for name in os.listdir("/proc/self/fd"))
    held = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 2, before[1]))
        while True:
            try:
                held.append(os.open("/dev/null", os.O_RDONLY))
            except OSError:
                break
        with pytest.raises(OSError, match=r"Too many open files.*bank") as error:
            bank(5).save(tmp_path / "bank")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for handle in held:
            os.close(handle)
    assert error.value.filename == str(tmp_path / "bank")
    assert os.listdir(tmp_path) == ["bank"]
