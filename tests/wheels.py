"""Checks the wheels of `make wheels`: python tests/wheels.py dist/*.whl

All platforms are there, each wheel has its platform's tag and the same Python files, and its library is for the right
processor and loads only what the system or Python has. Needs lief.
"""

from __future__ import annotations

import email
import hashlib
import re
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import lief

LINUX = r"lib(c|m|dl|pthread|rt)\.so\.\d|libgcc_s\.so\.1|ld-linux-[a-z0-9-]+\.so\.\d"
MUSL = r"libc\.so|libgcc_s\.so\.1|libc\.musl-[a-z0-9_]+\.so\.1"
MACOS = r"/usr/lib/lib(System\.B|iconv\.2|charset\.1|resolv\.9)\.dylib"
WINDOWS = r"(api-ms-win-[a-z0-9-]+|kernel32|ntdll|msvcrt|bcryptprimitives|advapi32|userenv|ws2_32|python3)\.dll"
PYTHON_SYMBOL = re.compile(r"_?_?Py[A-Z_a-z0-9]+")


@dataclass(frozen=True)
class Platform:
    """The library of a platform's wheel: its processor by lief's name, and the libraries that it may load."""

    library: str
    processor: str
    may_load: str


PLATFORMS = {
    r"manylinux2014_x86_64\.manylinux_2_17_x86_64": Platform("_core.abi3.so", "X86_64", LINUX),
    r"manylinux2014_aarch64\.manylinux_2_17_aarch64": Platform("_core.abi3.so", "AARCH64", LINUX),
    r"musllinux_1_2_x86_64": Platform("_core.abi3.so", "X86_64", MUSL),
    r"musllinux_1_2_aarch64": Platform("_core.abi3.so", "AARCH64", MUSL),
    r"macosx_\d+_\d+_x86_64": Platform("_core.abi3.so", "X86_64", MACOS),
    r"macosx_\d+_\d+_arm64": Platform("_core.abi3.so", "ARM64", MACOS),
    r"win_amd64": Platform("_core.pyd", "AMD64", WINDOWS),
}
FILES = (
    "bitnet/__init__.py",
    "bitnet/_core.pyi",
    "bitnet/cli/__init__.py",
    "bitnet/models/trit.gguf",
    "bitnet/py.typed",
    "pytest_bitnet/__init__.py",
)
LICENSES = ("LICENSE-APACHE", "LICENSE-MIT")


def main(paths: list[Path]) -> None:
    """Check the wheels and print a line for each."""
    contents: dict[str, str] = {}
    missing = dict.fromkeys(PLATFORMS)
    for path in sorted(paths):
        name, python, abi, tag = path.stem.rsplit("-", 3)
        pattern = next(
            (pattern for pattern in PLATFORMS if re.fullmatch(pattern, ".".join(sorted(tag.split("."))))), None
        )
        assert pattern, f"{path.name}: no platform has this tag; add it to tests/wheels.py"
        assert (python, abi) == ("cp310", "abi3"), f"{path.name}: expected cp310-abi3"
        missing.pop(pattern, None)
        with zipfile.ZipFile(path) as wheel:
            assert wheel.testzip() is None, f"{path.name}: a file is damaged"
            check_metadata(wheel, f"{name}.dist-info", f"{python}-{abi}", tag)
            library = f"bitnet/{PLATFORMS[pattern].library}"
            loads = check_library(wheel.read(library), PLATFORMS[pattern], path.name)
            other = {file for file in wheel.namelist() if file != library and ".dist-info/" not in file}
            assert other >= set(FILES), f"{path.name}: without {set(FILES) - other}"
            for file in other:
                digest = hashlib.sha256(wheel.read(file)).hexdigest()
                assert contents.setdefault(file, digest) == digest, f"{path.name}: {file} is not that of other wheels"
            assert other == set(contents), f"{path.name}: without {set(contents) - other}"
        print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB, loads {', '.join(sorted(loads))}")
    assert not missing, f"no wheel for {', '.join(missing)}"


def check_metadata(wheel: zipfile.ZipFile, folder: str, python: str, tag: str) -> None:
    """The tags are those of the file's name, and the licences are there."""
    tags = email.message_from_bytes(wheel.read(f"{folder}/WHEEL")).get_all("Tag")
    assert tags == [f"{python}-{single}" for single in tag.split(".")], f"{folder}: {tags}"
    for licence in LICENSES:
        assert f"{folder}/licenses/{licence}" in wheel.namelist(), f"{folder}: without {licence}"


def check_library(data: bytes, platform: Platform, name: str) -> set[str]:
    """The library is for the platform's processor, has the module's entry, and loads only what it may."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        binary = lief.parse(file.name)
    assert binary, f"{name}: {platform.library} is not a library"
    if isinstance(binary, lief.MachO.Binary):
        # The first of them is the library's own name.
        loaded = [library for library in binary.libraries if library.command != lief.MachO.LoadCommand.TYPE.ID_DYLIB]
        processor, loads = binary.header.cpu_type.name, {library.name for library in loaded}
        # Symbols of no library are looked up among all that are loaded: they must be Python's.
        for symbol in binary.imported_symbols:
            if not (symbol.has_binding_info and symbol.binding_info.has_library):
                assert PYTHON_SYMBOL.fullmatch(symbol.name), f"{name}: nobody has {symbol.name}"
    elif isinstance(binary, lief.PE.Binary):
        processor, loads = binary.header.machine.name, set(binary.libraries)
    else:
        processor, loads = binary.header.machine_type.name, set(binary.libraries)
    assert processor == platform.processor, f"{name}: for {processor}"
    assert any(function.name.strip("_") == "PyInit__core" for function in binary.exported_functions), (
        f"{name}: no entry"
    )
    for library in loads:
        allowed = re.fullmatch(platform.may_load, library, re.IGNORECASE)
        assert allowed, f"{name}: loads {library}, which not every system has"
    return loads


if __name__ == "__main__":
    main([Path(arg) for arg in sys.argv[1:]])
