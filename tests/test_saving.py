"""What `save` does to what stands at the path: files, links, devices, folders, what killed processes left."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bitnet import ChatSession, Engine, Receipt

Save = Callable[[Path], Any]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine() as engine:
        yield engine


@pytest.fixture(params=["receipt", "session", "session with cache"])
def save(engine: Engine, request: pytest.FixtureRequest) -> Save:
    session = ChatSession(engine)
    receipt = session.send("What is 2+2?").receipt
    assert receipt
    if request.param == "receipt":
        return receipt.save
    return lambda path: session.save(path, cache=request.param.endswith("cache"))


@pytest.mark.parametrize("device", ["/dev/null", "/dev/full"])
def test_a_device_stays_a_device(save: Save, device: str) -> None:
    with pytest.raises(OSError, match="device"):
        save(Path(device))
    assert stat.S_ISCHR(os.stat(device).st_mode)


def test_pipes_and_folders_are_refused_at_once(save: Save, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="pipe"):
        save(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        save(tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "pipe"]


def test_the_target_of_a_link_is_replaced(save: Save, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "real").write_text("old")
    (tmp_path / "link").symlink_to(Path("inside") / "real")
    save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (inside / "real").read_bytes().startswith(b"{")
    (tmp_path / "dangling").symlink_to(Path("inside") / "new")
    save(tmp_path / "dangling")
    assert (tmp_path / "dangling").is_symlink() and (inside / "new").is_file()
    assert sorted(path.name for path in inside.iterdir()) == ["new", "real"]


def test_what_a_killed_process_left_is_removed_by_the_next_save(save: Save, tmp_path: Path) -> None:
    left, others = tmp_path / ".file.AbCdEf.tmp", [tmp_path / ".other.AbCdEf.tmp", tmp_path / "file.AbCdEf.tmp"]
    for path in (left, *others):
        path.write_text("half")
    busy = tmp_path / ".file.GhIjKl.tmp"
    with busy.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # another process that is still writing
        save(tmp_path / "file")
    assert not left.exists() and busy.exists() and all(path.exists() for path in others)


KILLED = """
import sys
from bitnet import ChatSession, Engine
session = ChatSession(Engine())
session.send("What is 2+2?")
session.save(sys.argv[1], cache=True)
print("ready", flush=True)
while True:
    session.save(sys.argv[1], cache=True)
"""


def test_a_kill_leaves_the_file_whole_and_the_next_save_cleans_up(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "talk"
    for wait in (0.0, 0.003, 0.007, 0.011):
        process = subprocess.Popen([sys.executable, "-c", KILLED, path], stdout=subprocess.PIPE)
        assert process.stdout and process.stdout.readline() == b"ready\n"
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        session = ChatSession.load(engine, path)
        assert session.send("What is 3+3?").cached_tokens > 0
        session.save(path)
        assert [left.name for left in tmp_path.iterdir()] == ["talk"]


def test_the_files_have_the_modes_of_what_they_hold(engine: Engine, tmp_path: Path) -> None:
    session = ChatSession(engine)
    receipt = session.send("What is 2+2?").receipt
    assert isinstance(receipt, Receipt)
    assert stat.S_IMODE(receipt.save(tmp_path / "receipt").stat().st_mode) == 0o644
    assert stat.S_IMODE(session.save(tmp_path / "talk").stat().st_mode) == 0o600
