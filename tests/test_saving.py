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

from bitnet import ArgumentError, ChatSession, Engine, Receipt

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


@pytest.mark.skipif(sys.platform == "win32", reason="modes of Unix")
def test_a_receipt_obeys_the_umask_and_keeps_a_mode(engine: Engine, tmp_path: Path) -> None:
    receipt = engine.generate([1, 2, 3], max_tokens=1).receipt
    assert receipt
    path = tmp_path / "r.json"
    code = "import bitnet, os, sys; os.umask(0o077); bitnet.Receipt.load(sys.argv[1]).save(sys.argv[2])"
    receipt.save(path)
    subprocess.run([sys.executable, "-c", code, path, tmp_path / "private.json"], check=True, timeout=60)
    assert stat.S_IMODE((tmp_path / "private.json").stat().st_mode) == 0o600
    path.chmod(0o640)
    receipt.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_only_temporary_files_of_our_own_are_removed(save: Save, tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    notes = [tmp_path / name for name in (".f.json.my-notes.tmp", ".f.json.abc.tmp", ".f.json..tmp")]
    for note in notes:
        note.write_text("mine")
    os.mkfifo(tmp_path / ".f.json.AbCd01.tmp")
    (tmp_path / ".f.json.AbCd02.tmp").mkdir()
    save(path)
    assert all(note.read_text() == "mine" for note in notes)


def test_links_to_links_and_long_names(save: Save, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "a").symlink_to("folder/b")
    (folder / "b").symlink_to("../missing")
    save(tmp_path / "a")
    assert (tmp_path / "a").is_symlink()
    assert (folder / "b").is_symlink()
    assert (tmp_path / "missing").is_file()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="loop"):
        save(tmp_path / "loop")
    long = tmp_path / ("\u00e9" * 127)
    save(long)
    assert long.is_file()


def test_a_saved_conversation_has_limits(engine: Engine, tmp_path: Path) -> None:
    session = ChatSession(engine)
    session.send("Hi", max_tokens=1)
    path = session.save(tmp_path / "chat.json")
    text = path.read_text()
    assert '"stop": []' in text
    path.write_text(text.replace('"stop": []', '"stop": [' + '"a",' * (5 << 20) + '"b"]'))
    with pytest.raises(ArgumentError, match="more than 268435456 bytes or 4194304 values"):
        ChatSession.load(engine, path)
