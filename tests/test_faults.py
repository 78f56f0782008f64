"""Faults of the machine: no threads, no memory, no disk, closed files, signals. Each gives the user an error that says
so (or, for a mapped file that is cut, what the docs say), and the engine works on once the fault is over.

Each fault is made in a process of its own. Others have tests beside what they disturb: kills and devices in
`test_saving.py`, kills and full disks of batch files in `test_batch.py`, forks in `test_contract.py`.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bitnet._synthetic import Spec
from conftest import ModelMaker

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="makes faults as Linux does")

BIG = Spec("bitnet", 8, 1024, 4096, 16, 16, vocab_size=300, context=2048, linear="F32")
"""It takes about a second to load, hash or compute a long prompt."""

COMMON = """
import asyncio, contextlib, ctypes, os, pickle, resource, signal, sys, threading, time, warnings
import bitnet
warnings.simplefilter("ignore", bitnet.BitnetWarning)

def used():
    return int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()

@contextlib.contextmanager
def unprivileged():
    # Root may do everything, so that it would see no fault.
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    yield
    if root:
        os.seteuid(0)

@contextlib.contextmanager
def limited(what, value):
    before = resource.getrlimit(what)
    resource.setrlimit(what, (value, before[1]))
    yield
    resource.setrlimit(what, before)

def report(name, call):
    try:
        call()
        print(name, "ok", flush=True)
    except BaseException as error:
        print(name, type(error).__name__, str(error).replace("\\n", " "), flush=True)
"""


def run(code: str, *arguments: str | Path, returncode: int = 0) -> list[str]:
    """The lines that a script prints. It must end as expected and say nothing else."""
    command = [sys.executable, "-c", COMMON + code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.stderr, done.returncode) == ("", returncode), done.stdout + done.stderr
    return done.stdout.splitlines()


# Threads -----------------------------------------------------------------------------------------------------------

NO_THREADS = """
if os.getuid() == 0:  # The limit does not hold for root. Files are still root's to read.
    os.setresuid(65534, 65534, 0)
    ctypes.CDLL(None).setfsuid(0)
engine = bitnet.Engine(n_threads=2)
chat = bitnet.ChatSession(engine)
started = asyncio.run(engine.agenerate("Hello", max_tokens=2)) if sys.argv[1] == "after" else None

async def stream():
    return [piece async for piece in engine.stream("Hello", max_tokens=3)]

def everything(label):
    report(label + " open", lambda: bitnet.Engine(n_threads=2))
    report(label + " inspect", lambda: bitnet.inspect(engine.path))
    report(label + " render", lambda: chat.template.render([{"role": "user", "content": "Hi"}]))
    report(label + " generate", lambda: engine.generate("Hello", max_tokens=2))
    report(label + " send", lambda: chat.send("Hi", max_tokens=2))
    report(label + " agenerate", lambda: asyncio.run(engine.agenerate("Hello", max_tokens=2)))
    report(label + " stream", lambda: asyncio.run(stream()))
    report(label + " asend", lambda: asyncio.run(chat.asend("Hi", max_tokens=2)))
    report(label + " digest", lambda: engine.generate("Hello", max_tokens=2).receipt.digest)

with limited(resource.RLIMIT_NPROC, 0):
    everything("without")
everything("with")
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_threads_that_cannot_be_started(when: str) -> None:
    """An error where a thread is needed, and nothing is broken once there are threads again. Threads of an earlier
    `await` are used again."""
    lines = run(NO_THREADS, when)
    needs_one = {"open", "inspect", "render", "send", "asend"}
    if when == "before":
        needs_one |= {"agenerate", "stream"}
    for line in lines:
        phase, name, kind, *_ = line.split()
        if phase == "without" and name in needs_one:
            assert kind == "BitnetError" and "could not start the thread" in line and "ulimit -u" in line, line
        else:
            assert kind == "ok", line
    assert len(lines) == 18


# Memory ------------------------------------------------------------------------------------------------------------

NO_MEMORY = """
engine = bitnet.Engine(sys.argv[1], n_threads=1)
short = engine.generate_tokens([1, 2], max_tokens=2)
with limited(resource.RLIMIT_AS, used() + (1 << 20)):
    report("open", lambda: bitnet.Engine(sys.argv[1], n_threads=1))
for slack in (1, 3, 10, 30):
    with limited(resource.RLIMIT_AS, used() + (slack << 20)):
        report("logits", lambda: engine.logits([1] * 2000))
        report("prefill", lambda: engine.prefill([1] * 2000))
        report("batch", lambda: engine.generate_tokens([[1] * 500] * 20, max_tokens=1))
        report("embed", lambda: engine.embed([[1] * 500] * 20))
print(engine.generate_tokens([1, 2], max_tokens=2) == short)
"""


def test_memory_that_is_exhausted(model: ModelMaker) -> None:
    """Large allocations fail with an error. A small one that fails aborts the process, as everywhere in Rust; it is
    rare, because the large ones fail first."""
    spec = Spec("llama", 4, 256, 512, 4, 4, vocab_size=30_000, context=2048, linear="F32")
    *lines, same = run(NO_MEMORY, model(spec))
    assert same == "True"
    kinds = {line.split()[1] for line in lines}
    assert kinds <= {"ok", "OutOfMemoryError", "MemoryError", "BitnetError", "OSError"}, lines
    assert "OutOfMemoryError" in kinds


# Disk --------------------------------------------------------------------------------------------------------------

DISK = """
engine = bitnet.Engine()
chat = bitnet.ChatSession(engine)
receipt = chat.send("Hi", max_tokens=4).receipt
digest = receipt.digest
folder = sys.argv[1]
path = lambda name: os.path.join(folder, name)
calls = {
    "receipt": lambda: receipt.save(path("receipt")),
    "session": lambda: chat.save(path("session")),
    "cached": lambda: chat.save(path("cached"), cache=True),
}
for name, call in calls.items():
    call()
before = {name: open(path(name), "rb").read() for name in calls}
chat.send("And then?", max_tokens=4)
receipt = chat.receipts[-1]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with limited(resource.RLIMIT_FSIZE, 300):
    for name, call in calls.items():
        report("full " + name, call)
os.chmod(folder, 0o555)
with unprivileged():
    for name, call in calls.items():
        report("unwritable " + name, call)
os.chmod(folder, 0o755)
print("old files", {name: open(path(name), "rb").read() for name in os.listdir(folder)} == before)
"""


def test_a_full_disk_and_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    folder.mkdir()
    *lines, old = run(DISK, folder)
    assert old == "old files True"
    for line in lines:
        fault, name, kind, *_ = line.split()
        assert kind == {"full": "OSError", "unwritable": "PermissionError"}[fault], line
        assert str(folder / name) in line, line
    assert len(lines) == 6


# Files -------------------------------------------------------------------------------------------------------------

REPLACED = """
engine = bitnet.Engine(sys.argv[1])
before = engine.generate_tokens([1, 2, 3], max_tokens=4)
os.replace(sys.argv[2], sys.argv[1])
print(engine.generate_tokens([1, 2, 3], max_tokens=4) == before)
receipt = engine.generate([1, 2, 3], max_tokens=4).receipt
print(receipt.to_dict()["claim"]["model"])
"""


def test_a_model_that_is_replaced_stays_the_one_that_was_opened(tmp_path: Path, model: ModelMaker) -> None:
    import blake3

    paths = []
    for seed in (1, 2):
        paths.append(tmp_path / f"{seed}.gguf")
        paths[-1].write_bytes(model(Spec(seed=seed)).read_bytes())
    expected = blake3.blake3(paths[0].read_bytes()).hexdigest()
    assert run(REPLACED, *paths) == ["True", expected]


TRUNCATED = """
engine = bitnet.Engine(sys.argv[1])
os.truncate(sys.argv[1], 4096)
print("alive", flush=True)
engine.logits(list(range(200)))
"""


def test_a_model_that_is_cut_while_it_is_open_ends_the_process(tmp_path: Path, model: ModelMaker) -> None:
    """The system kills whoever reads a mapped page that its file no longer has (docs/security.md): SIGBUS."""
    path = tmp_path / "model.gguf"
    path.write_bytes(model(Spec(linear="F32")).read_bytes())
    assert run(TRUNCATED, path, returncode=-signal.SIGBUS) == ["alive"]


CLOSED = """
engine = bitnet.Engine(n_threads=2)
answer = engine.generate("Hello", max_tokens=4)
chat = bitnet.ChatSession(engine)
os.closerange(3, 200)
report("generate", lambda: engine.generate("Hello", max_tokens=4))
report("send", lambda: chat.send("Hi", max_tokens=2))
report("digest", lambda: answer.receipt.digest)
report("digest", lambda: answer.receipt.digest)
report("open", lambda: bitnet.Engine(n_threads=2))
os._exit(0)  # Rust and Python would close descriptors of theirs again
"""


def test_closed_descriptors() -> None:
    generate, send, *digests, opened = run(CLOSED)
    assert (generate, send, opened) == ("generate ok", "send ok", "open ok")
    for digest in digests:
        assert "ReceiptError" in digest and "could not be hashed" in digest


FORKED = """
warnings.simplefilter("ignore")
engine = bitnet.Engine(n_threads=2)
chat = bitnet.ChatSession(engine)
stream = chat.stream("What is 2+2?")
next(stream)
child = os.fork()
if child == 0:
    report("next", lambda: next(stream))
    report("render", lambda: chat.template.render([{"role": "user", "content": "Hi"}]))
    report("encode", lambda: engine.encode("Hello"))
    report("await", lambda: asyncio.run(bitnet.Engine(n_threads=1).agenerate("Hi", max_tokens=2)))
    report("close", engine.close)
    os._exit(0)
os.waitpid(child, 0)
report("parent", lambda: list(stream))
"""


def test_a_forked_process_gets_errors_and_its_parent_goes_on() -> None:
    step, render, encode, awaited, close, parent = run(FORKED)
    assert step.startswith("next ArgumentError") and "spawn" in step
    assert (render, encode, awaited, close, parent) == ("render ok", "encode ok", "await ok", "close ok", "parent ok")


# The end of Python, and signals --------------------------------------------------------------------------------------

OPEN_STREAMS = """
engine = bitnet.Engine(sys.argv[1], n_threads=2, n_batch=16)
streams = [engine.stream(list(range(100)) * 15) for _ in range(8)]
def pull(stream):
    for piece in stream:
        pass
for stream in streams:
    threading.Thread(target=pull, args=(stream,), daemon=True).start()
time.sleep(0.3)
print("leaving")
"""


def test_python_ends_with_streams_open_in_daemon_threads(model: ModelMaker) -> None:
    assert run(OPEN_STREAMS, model(BIG)) == ["leaving"]


STAGES = """
model = sys.argv[1]
engine = bitnet.Engine(model, isa="scalar", n_threads=2, n_batch=16)
chat = None
long = list(range(100)) * 19
answer = engine.generate([1], max_tokens=1)
class Told(Exception): pass
def tell(*_): raise Told
signal.signal(signal.SIGUSR1, tell)
folder = sys.argv[2]
loop = "{% for message in messages %}{{ message.content | upper | replace('A', 'b') }}{% endfor %}"
slow = bitnet.Template.from_jinja(loop)
said = [{"role": "user", "content": "aeiou " * 20_000}] * 300
inside = bitnet.Engine(kv_type="f32")
text = "Many words, which take a while to encode. " * 400_000
chat = bitnet.ChatSession(inside)
chat.send("Hi", max_tokens=4)
chat.save(folder + "/chat", cache=True)
stages = {
    "encode": lambda: inside.encode(text),
    "prompt": lambda: inside.generate(text),
    "render": lambda: [slow.render(said) for _ in range(9)],
    "hash": lambda: [bitnet.Engine(model).generate([1], max_tokens=1).receipt.digest for _ in range(40)],
    "save": lambda: [chat.save(folder + "/chat", cache=True) for _ in range(100_000)],
    "load": lambda: [bitnet.ChatSession.load(inside, folder + "/chat") for _ in range(100_000)],
    "open": lambda: [bitnet.Engine(model) for _ in range(40)],
    "prefill": lambda: engine.prefill(long),
    "logits": lambda: engine.logits(long),
    "decode": lambda: [list(engine.stream([1], max_tokens=2000, ignore_eos=True)) for _ in range(40)],
    "embed": lambda: engine.embed([long]),
    "inspect": lambda: [bitnet.inspect(model, weights=True) for _ in range(40)],
}
for name, call in stages.items():
    for number, error in ((signal.SIGINT, KeyboardInterrupt), (signal.SIGUSR1, Told)):
        threading.Timer(0.15, os.kill, (os.getpid(), number)).start()
        start = time.monotonic()
        try:
            call()
            print(name, "was not told")
        except error:
            print(name, "told" if time.monotonic() - start < 2 else "told late")
"""


def test_signals_are_seen_in_every_stage(model: ModelMaker, tmp_path: Path) -> None:
    lines = run(STAGES, model(BIG), tmp_path)
    assert len(lines) == 24 and all(line.endswith(" told") for line in lines), lines
