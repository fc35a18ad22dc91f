import signal
import subprocess
import sys
import time

import pytest

from builders.errors import UserError
from builders.swap import folder_being_built


def write_version(target, version, n_files=20):
    with folder_being_built(target) as folder:
        for number in range(n_files):
            (folder / f"{number}").write_text(version)


def versions(target):
    return [path.read_text() for path in sorted(target.iterdir(), key=lambda path: int(path.name))]


@pytest.mark.parametrize("platform", ["linux", "another"])
def test_the_new_folder_takes_the_place_of_the_old_and_nothing_else_stays(tmp_path, monkeypatch, platform):
    monkeypatch.setattr(sys, "platform", platform)  # without an exchange of names, two renames
    for version in ("one", "two"):
        write_version(tmp_path / "deep" / "target", version)
        assert versions(tmp_path / "deep" / "target") == [version] * 20
        assert [path.name for path in (tmp_path / "deep").iterdir()] == ["target"]


def write_half(target):
    with folder_being_built(target) as folder:
        (folder / "0").write_text("half")
        raise RuntimeError("half-way")


def test_a_failure_leaves_the_old_folder_whole(tmp_path):
    write_version(tmp_path / "target", "old")
    with pytest.raises(RuntimeError, match="half-way"):
        write_half(tmp_path / "target")
    assert versions(tmp_path / "target") == ["old"] * 20
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_a_failure_without_an_old_folder_leaves_none(tmp_path):
    with pytest.raises(RuntimeError, match="half-way"):
        write_half(tmp_path / "target")
    assert list(tmp_path.iterdir()) == []


def test_a_second_writer_is_refused(tmp_path):
    target = tmp_path / "target"
    with folder_being_built(target), pytest.raises(UserError) as error, folder_being_built(target):
        pass
    assert str(error.value) == f"another process is building {target} right now; wait until it ends"
    write_version(target, "later")  # the lock is gone with its holder


def test_a_place_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError) as error:
        write_version(tmp_path / "file" / "deep" / "target", "new")
    assert str(error.value) == (
        f"cannot write {tmp_path}/file/deep/target: {tmp_path}/file is not a folder\n  fix: choose another --out"
    )
    (tmp_path / "link").symlink_to("made-later")
    write_version(tmp_path / "link" / "deep" / "target", "new")
    assert (tmp_path / "made-later" / "deep" / "target").is_dir()


def test_a_link_is_followed(tmp_path):
    write_version(tmp_path / "disk" / "target", "old")
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "target")
    write_version(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert versions(tmp_path / "disk" / "target") == ["new"] * 20


def test_a_kill_between_two_renames_is_mended(tmp_path):
    write_version(tmp_path / ".target.old", "old")
    with pytest.raises(RuntimeError, match="half-way"):
        write_half(tmp_path / "target")
    assert versions(tmp_path / "target") == ["old"] * 20


WRITE_FOREVER = """
import itertools, pathlib, sys
from builders.swap import folder_being_built
print("ready", flush=True)
for version in itertools.count():
    with folder_being_built(pathlib.Path(sys.argv[1])) as folder:
        for number in range(20):
            (folder / str(number)).write_text(str(version))
"""


def test_killed_at_any_moment_the_folder_is_of_one_version(tmp_path):
    target = tmp_path / "target"
    write_version(target, "first")
    for delay_s in (0.0, 0.01, 0.03, 0.055, 0.1, 0.2):
        writer = subprocess.Popen([sys.executable, "-c", WRITE_FOREVER, str(target)], stdout=subprocess.PIPE, text=True)
        with writer:
            assert writer.stdout.readline() == "ready\n"
            time.sleep(delay_s)
            writer.send_signal(signal.SIGKILL)
        found = versions(target)
        assert len(found) == 20
        assert len(set(found)) == 1
    write_version(target, "last")  # what the killed ones left behind does not disturb
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_a_place_that_may_not_be_written_to_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, how: path != tmp_path)  # root, in CI, may write everywhere
    with pytest.raises(UserError) as error:
        write_version(tmp_path / "deep" / "target", "new")
    assert str(error.value) == (
        f"cannot write {tmp_path}/deep/target: no permission to write to {tmp_path}\n  fix: choose another --out"
    )
    assert not (tmp_path / "deep").exists()
