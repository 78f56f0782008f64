# On a fresh machine with Rust, Python 3.10+ and gcc, each target sets up what it needs.

SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUST_SOURCES := $(shell find src -name '*.rs') build.rs python/bitnet/_core.pyi Cargo.toml Cargo.lock
MODEL_2B := models/2b-4t.gguf
AARCH64 := aarch64-unknown-linux-gnu
EMULATED := --test kernels --test contract --test codec
DOCUMENTED := bitnet bitnet.errors bitnet.hub bitnet.models pytest_bitnet
TRIAL_TOOLS := pytest pytest-xdist nbclient ipykernel gguf
FREE_PYTHON ?= python3.14t
THREADED := $(addprefix tests/test_,threads.py asyncio.py batch.py chat.py contract.py lm_head.py receipt.py sessions.py text.py)

MODEL ?=

.PHONY: help chat test test-rust test-python lint docs bench emulate wheel wheel-free-threaded clean

help:  ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 14

chat: $(VENV)/built  ## Talk with the model inside the package, or another: make chat MODEL=file.gguf
	@$(BIN)/bitnet chat $(MODEL)

test: test-rust test-python  ## Build, install, run every test

test-rust:  # The core, without Python
	cargo test --no-default-features

test-python: $(VENV)/built
	$(BIN)/python -m pytest -n auto

lint: $(VENV)/built  ## Formatting, lints, types and stubs; warnings are errors
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	cargo clippy --all-targets --no-default-features -- -D warnings
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest bitnet --ignore-disjoint-bases --mypy-config-file pyproject.toml

docs: $(VENV)/built  ## Build the API reference from the docstrings: target/docs/bitnet.html
	mkdir -p target/types && sed 1d python/bitnet/_core.pyi > target/types/bitnet.pyi  # where pdoc finds types
	PYTHONPATH=target/types $(BIN)/pdoc --template-directory docs/reference --output-directory target/docs $(DOCUMENTED)

bench: $(VENV)/built $(MODEL_2B)  ## Time the kernels, then a synthetic model of the shape of BitNet 2B-4T
	cargo bench --no-default-features -- --quiet
	$(BIN)/bitnet bench $(MODEL_2B)
	$(BIN)/python benches/timings.py
	$(BIN)/python benches/timings.py $(MODEL_2B)

emulate:  ## Run the core's tests on AArch64 and on an x86-64 without AVX, emulated (Debian, as root)
	command -v qemu-aarch64 aarch64-linux-gnu-gcc >/dev/null || \
	  (apt-get update -qq && apt-get install -y -qq qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross)
	rustup target add $(AARCH64)
	for cpu in max cortex-a53; do \
	  CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
	  CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu -cpu $$cpu" \
	  cargo test --no-default-features --target $(AARCH64) $(EMULATED) || exit 1; \
	done
	for cpu in Nehalem Haswell; do \
	  CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="qemu-x86_64 -cpu $$cpu" \
	  cargo test --no-default-features --target x86_64-unknown-linux-gnu $(EMULATED) || exit 1; \
	done

wheel: $(VENV)/tools  ## Build a manylinux wheel, and try it without Rust: commands, examples, notebooks
	$(BIN)/python -m pip install --quiet ziglang
	rm -rf dist
	PATH="$(CURDIR)/$(BIN):$$PATH" VIRTUAL_ENV=$(CURDIR)/$(VENV) maturin build --release --quiet --zig --compatibility manylinux2014 --out dist
	rm -rf $(VENV)/clean && $(PYTHON) -m venv $(VENV)/clean
	$(VENV)/clean/bin/python -m pip install --quiet dist/*.whl
	cd $(VENV) && PATH=/usr/bin:/bin clean/bin/bitnet inspect ../tests/fixtures/relu2-i2s.gguf
	cd $(VENV) && echo 'What is 2+2?' | PATH=/usr/bin:/bin clean/bin/bitnet chat --receipt-dir receipts
	$(VENV)/clean/bin/python -m pip install --quiet "$$(echo dist/*.whl)[notebook]" $(TRIAL_TOOLS)
	$(VENV)/clean/bin/python -m pytest -n auto -p no:cacheprovider tests/test_package.py tests/test_notebooks.py

wheel-free-threaded: $(VENV)/tools  ## The same for a Python without the GIL, and its tests: FREE_PYTHON=python3.14t
	rm -f dist/*-cp3??t-*.whl
	PATH="$(CURDIR)/$(BIN):$$PATH" VIRTUAL_ENV=$(CURDIR)/$(VENV) maturin build --release --quiet --zig --compatibility manylinux2014 --out dist --interpreter $(FREE_PYTHON)
	rm -rf $(VENV)/free && $(FREE_PYTHON) -m venv $(VENV)/free
	$(VENV)/free/bin/python -m pip install --quiet dist/*-cp3??t-*.whl pytest pytest-xdist blake3 gguf
	$(VENV)/free/bin/python -m pytest -n auto -p no:cacheprovider $(THREADED)

clean:  ## Remove everything that was built
	rm -rf target $(VENV) models dist

$(VENV)/tools: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet maturin --group dev
	touch $@

$(VENV)/built: $(VENV)/tools $(RUST_SOURCES)
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/maturin develop --release --quiet >/dev/null  # what pip finds satisfied
	touch $@

$(MODEL_2B): | $(VENV)/built
	mkdir -p models
	$(BIN)/python benches/make_model.py --preset 2b-4t $@
