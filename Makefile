# Every target first builds and installs what it needs. The machine needs Rust, Python 3.10+ and gcc.
# The tests of the server's page also need Chromium and its driver (Debian: chromium, chromium-driver) and are skipped
# without; `.ci/run` installs them, no target does.
#
# Files in .venv record which of these steps are done:
#   python  the virtual environment, with pip and maturin
#   built   the package and its two dependencies: all that `make chat` needs
#   ruff    the formatter
#   tools   the group "test" of pyproject.toml, for tests, lints and the API reference: about 1.3 GB
#   zig     the linker for wheels of other systems
#   cross   Debian's compilers and emulators for Windows and AArch64
#   aarch64 Debian's Python for AArch64 and the packages that its tests need

SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
RUST_SOURCES := $(shell find src -name '*.rs') build.rs python/bitnet/_core.pyi Cargo.toml Cargo.lock
MODEL_2B := models/2b-4t.gguf
AARCH64 := aarch64-unknown-linux-gnu
BROWSER := wasm32-unknown-unknown
EMULATED := --test kernels --test grouped --test delta_net --test contract --test codec --test codec_groups
DOCUMENTED := bitnet bitnet.certificate bitnet.errors bitnet.hub bitnet.models bitnet.referee pytest_bitnet
TRIAL_TOOLS := pytest pytest-xdist nbclient ipykernel gguf
FREE_PYTHON ?= python3.14t
THREADED := threads asyncio batch chat contract lm_head receipt sessions text
IN_VENV := PATH="$(CURDIR)/$(BIN):$$PATH" VIRTUAL_ENV="$(CURDIR)/$(VENV)"
WHEELS := x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu x86_64-unknown-linux-musl aarch64-unknown-linux-musl \
  x86_64-apple-darwin aarch64-apple-darwin x86_64-pc-windows-gnu
WINDOWS := x86_64-pc-windows-gnu
ON_WINE := WINEDEBUG=-all WINEPATH="Z:$(CURDIR)/$(VENV)/wine" CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER=/usr/lib/wine/wine64
ON_QEMU := CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
# An apt of its own, for packages that are unpacked and never installed.
ARM := $(CURDIR)/$(VENV)/aarch64
ARM_APT := apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State::Lists=$(ARM)/lists \
  -o Dir::State::status=$(ARM)/status -o Dir::Cache=$(ARM)/cache -o APT::Sandbox::User=root
ARM_PIP = $(PIP) install --quiet --target $(ARM)/site --only-binary=:all: \
  --python-version $$(readlink $(ARM)/system/usr/bin/python3 | sed s/python//) --platform manylinux2014_aarch64 --platform manylinux_2_28_aarch64
ARM_WHEEL = @ls dist/*manylinux*aarch64.whl >/dev/null || { echo "run make wheels first" >&2; exit 1; }; \
  $(ARM_PIP) --upgrade --no-deps dist/*manylinux*aarch64.whl
ARM_TESTED := old_files replay
BUILD_WHEEL := $(IN_VENV) maturin build --release --zig --compatibility manylinux2014 --out dist

HOST = $(shell rustc -vV | sed -n 's/^host: //p')

MODEL ?=
MINUTES ?= 20
SECONDS_EACH ?= 60
TARGET ?=

.PHONY: help chat test test-rust test-python lint format docs bench soak fuzz asan miri emulate test-wasm wasm \
  wheel wheel-free-threaded wheels wheel-aarch64 windows platforms clean
.NOTPARALLEL:  # the steps share one virtual environment

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 21

chat: $(VENV)/built  ## Chat with the bundled model, or with another: make chat MODEL=file.gguf
	@$(BIN)/bitnet chat $(MODEL)

test: test-rust test-python  ## Run all tests

test-rust:  ## Run the tests of the Rust core
	cargo test

test-python: $(VENV)/built $(VENV)/tools  ## Run the tests of the Python package
	$(BIN)/python -m pytest -n auto

lint: $(VENV)/built $(VENV)/tools  ## Check formatting, lints, types and stubs; a warning is an error
	cargo fmt --check
	cargo clippy --all-targets --features python -- -D warnings
	cargo clippy --all-targets -- -D warnings
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest bitnet --ignore-disjoint-bases --mypy-config-file pyproject.toml

format: $(VENV)/ruff  ## Format the Rust and Python code; apply ruff's automatic fixes
	cargo fmt
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/built $(VENV)/tools  ## Build the API reference from the docstrings: target/docs/bitnet.html
	mkdir -p target/types && sed 1d python/bitnet/_core.pyi > target/types/bitnet.pyi  # pdoc reads types here
	PYTHONPATH=target/types $(BIN)/pdoc --docformat google -t docs/reference -o target/docs $(DOCUMENTED)

bench: $(VENV)/built $(MODEL_2B)  ## Measure the kernels, then a synthetic model in the shape of BitNet 2B-4T
	cargo bench -- --quiet
	$(BIN)/bitnet bench $(MODEL_2B)
	$(BIN)/python benches/timings.py
	$(BIN)/python benches/timings.py $(MODEL_2B)

soak: $(VENV)/built  ## Use two engines for 20 minutes from threads, tasks and HTTP clients: make soak MINUTES=20
	$(BIN)/python benches/soak.py --minutes $(MINUTES)

fuzz:  ## Fuzz each target for a minute with libFuzzer: make fuzz TARGET=template SECONDS_EACH=600
	SECONDS_EACH=$(SECONDS_EACH) fuzz/run.sh $(TARGET)

asan:  ## Run the tests of kernels, codecs, threads and files under AddressSanitizer
	RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address CARGO_TARGET_DIR=$${CARGO_TARGET_DIR:-target}/asan \
	  cargo test --target $(HOST) --lib --test codec --test codec_groups --test contract --test gguf --test grouped --test hf \
	  --test kernels -- --skip cost_tests --skip fail_fast  # these measure time and address space

miri:  ## Run the tests of threads and memory under Miri (needs a nightly compiler)
	rustup component add --toolchain nightly miri rust-src
	# Miri knows no instructions of a processor; on RISC-V there is only portable code. No C code is run, so any
	# compiler will do for that of a dependency.
	CC_riscv64gc_unknown_linux_gnu=cc CRATE_CC_NO_DEFAULTS=1 MIRIFLAGS=-Zmiri-disable-isolation \
	  CARGO_TARGET_DIR=$${CARGO_TARGET_DIR:-target}/miri \
	  cargo +nightly miri test --target riscv64gc-unknown-linux-gnu --lib machine::

emulate:  ## Run core tests under QEMU: AArch64, and x86-64 without AVX (needs Debian and root)
	# Each by itself: `command -v A B` succeeds when one of them is there.
	{ command -v qemu-aarch64 && command -v qemu-x86_64 && command -v aarch64-linux-gnu-gcc; } >/dev/null || \
	  (apt-get update -qq && apt-get install -y -qq qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross)
	rustup target add $(AARCH64)
	export BITNET_EMULATED=1; for cpu in max cortex-a53; do \
	  CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
	  CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu -cpu $$cpu" \
	  cargo test --target $(AARCH64) $(EMULATED) || exit 1; \
	done
	# No --target: on x86-64 these are the programs that `make test` has built.
	[ "$(HOST)" != x86_64-unknown-linux-gnu ] || { export BITNET_EMULATED=1; for cpu in Nehalem Haswell; do \
	  CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="qemu-x86_64 -cpu $$cpu" \
	  cargo test $(EMULATED) || exit 1; \
	done; }

test-wasm:  ## Run the tests of the kernels as WebAssembly (needs node)
	rustup target add wasm32-wasip1
	# What is skipped starts threads.
	cargo test --target wasm32-wasip1 --test kernels --test grouped --test delta_net -- --skip caller

wasm:  ## Build the core as WebAssembly for the page docs/verify, and put the bundled model beside it
	rustup target add $(BROWSER)
	cargo rustc --lib --crate-type cdylib --target $(BROWSER) --profile wasm
	cp $${CARGO_TARGET_DIR:-target}/$(BROWSER)/wasm/bitnet.wasm python/bitnet/models/trit.gguf docs/verify/

wheel: $(VENV)/zig  ## Build a manylinux wheel; test it in a fresh environment, with the examples and notebooks
	rm -rf dist
	$(BUILD_WHEEL)
	rm -rf $(VENV)/clean && $(PYTHON) -m venv $(VENV)/clean
	$(VENV)/clean/bin/python -m pip install --quiet dist/*.whl
	cd $(VENV) && PATH=/usr/bin:/bin clean/bin/bitnet inspect ../tests/fixtures/relu2-i2s.gguf
	cd $(VENV) && echo 'What is 2+2?' | PATH=/usr/bin:/bin clean/bin/bitnet chat --receipt-dir receipts
	@echo "==> Installing the test tools into $(VENV)/clean"
	$(VENV)/clean/bin/python -m pip install --quiet "$$(echo dist/*.whl)[notebook]" $(TRIAL_TOOLS)
	$(VENV)/clean/bin/python -m pytest -n auto -p no:cacheprovider tests/test_package.py tests/test_notebooks.py

wheel-free-threaded: $(VENV)/zig  ## Build and test a wheel for Python without the GIL: FREE_PYTHON=python3.14t
	rm -f dist/*-cp3??t-*.whl
	$(BUILD_WHEEL) --interpreter $(FREE_PYTHON)
	rm -rf $(VENV)/free && $(FREE_PYTHON) -m venv $(VENV)/free
	$(VENV)/free/bin/python -m pip install --quiet dist/*-cp3??t-*.whl pytest pytest-xdist blake3 gguf
	$(VENV)/free/bin/python -m pytest -n auto -p no:cacheprovider $(THREADED:%=tests/test_%.py)

wheels: $(VENV)/zig $(VENV)/cross  ## Build and check wheels for Linux, musl, macOS and Windows (needs Debian and root)
	rustup target add $(WHEELS)
	rm -rf dist
	for target in $(WHEELS); do \
	  case $$target in \
	    *-linux-gnu) options="--zig --compatibility manylinux2014" ;; \
	    *-linux-musl) options="--zig --compatibility musllinux_1_2" ;; \
	    *-apple-darwin) options=--zig ;; \
	    *) options= ;; \
	  esac; \
	  $(IN_VENV) maturin build --release --target $$target $$options --out dist || exit 1; \
	done
	$(PIP) install --quiet lief
	$(BIN)/python tests/wheels.py dist/*.whl

wheel-aarch64: $(VENV)/aarch64/python  ## Test the AArch64 wheel of make wheels under QEMU, with Debian's Python
	$(ARM_WHEEL)
	$< -m pytest -p no:cacheprovider $(ARM_TESTED:%=tests/test_%.py)

windows: $(VENV)/cross  ## Run the tests of the Rust core for Windows under Wine (needs Debian and root)
	rustup target add $(WINDOWS)
	BITNET_EMULATED=1 $(ON_WINE) cargo test --target $(WINDOWS)

platforms: $(VENV)/built $(VENV)/aarch64/python wasm  ## Replay one receipt on every platform that runs here, after make wheels
	$(ARM_WHEEL)
	rustup target add $(AARCH64) $(WINDOWS)
	cargo build --example receipt --target $(WINDOWS)
	$(ON_QEMU) cargo build --example receipt --target $(AARCH64)
	$(ON_WINE) AARCH64_PYTHON=$(ARM)/python $(BIN)/python tests/platforms.py

clean:  ## Remove everything that make has built and installed
	rm -rf target $(VENV) models dist

$(VENV)/python:
	@echo "==> Creating $(VENV) with maturin"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --quiet --upgrade pip "maturin>=1.16,<2"
	@touch $@

$(VENV)/built: $(VENV)/python pyproject.toml $(RUST_SOURCES)
	@echo "==> Compiling and installing the package: a few minutes the first time"
	@$(IN_VENV) maturin develop --release >/dev/null  # on stdout pip lists packages that are already installed
	@touch $@

$(VENV)/ruff: $(VENV)/python pyproject.toml
	@$(PIP) install --quiet --group format
	@touch $@

$(VENV)/tools: $(VENV)/python pyproject.toml
	@echo "==> Installing the tools for tests, lints and docs: about 1.3 GB"
	@$(PIP) install --quiet --group test
	@touch $@

$(VENV)/zig: $(VENV)/python
	@echo "==> Installing zig"
	@$(PIP) install --quiet ziglang
	@touch $@

$(VENV)/cross: tests/wine/bcryptprimitives.c
	@echo "==> Installing compilers and emulators for Windows and AArch64"
	apt-get update -qq
	apt-get install -y -qq --no-install-recommends gcc-mingw-w64-x86-64 wine64 qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross
	mkdir -p $(VENV)/wine
	x86_64-w64-mingw32-gcc -O2 -shared -o $(VENV)/wine/bcryptprimitives.dll $< -ladvapi32
	@touch $@

$(VENV)/aarch64/python: $(VENV)/python $(VENV)/cross
	@echo "==> Unpacking Debian's Python for AArch64"
	rm -rf $(ARM) && mkdir -p $(ARM)/lists/partial $(ARM)/cache/archives/partial $(ARM)/system && touch $(ARM)/status
	$(ARM_APT) update
	$(ARM_APT) install -y --no-install-recommends --download-only python3 libstdc++6
	for package in $(ARM)/cache/archives/*.deb; do dpkg-deb -x $$package $(ARM)/system || exit 1; done
	$(ARM_PIP) numpy prompt_toolkit pytest blake3 gguf jsonschema
	printf '#!/bin/sh\nPYTHONPATH=%s exec qemu-aarch64 -cpu max -L %s %s "$$@"\n' \
	  $(ARM)/site $(ARM)/system $(ARM)/system/usr/bin/python3 > $@
	chmod +x $@

$(MODEL_2B): | $(VENV)/built
	@echo "==> Writing $@"
	mkdir -p models
	$(BIN)/python benches/make_model.py --preset 2b-4t $@
