# `make demo` and `make test` set up everything they need, in .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= build/demo
READY := $(VENV)/.ready
DEVICE := $(VENV)/.device

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint bench fuzz crash demo-train starter device-test test-aarch64 test-gpu clean

help:
	@echo "make demo         the device alone, on the packaged starter: enroll rendered people, let right and forged ones try"
	@echo "make test         lint, types and tests"
	@echo "make demo-train   the whole story on no data: render people, train, export, enroll and verify; some minutes"
	@echo "make lint         ruff and mypy alone"
	@echo "make device-test  the device package alone, on PYTHON310 (default python3.10)"
	@echo "make bench        the log-mel against other packages; minutes, on an idle machine"
	@echo "make fuzz         a million damaged inputs to every parser; goes on where it was stopped"
	@echo "make crash        2,000 kills, a power cut after every write, a full disk at every write"
	@echo "make starter      distill the starter's encoders from public teachers, on DATA; minutes on a GPU, hours without, resumable (docs/starter.md)"
	@echo "make test-gpu     what needs an NVIDIA GPU"
	@echo "make test-aarch64 the compiled log-mel for aarch64 under emulation; needs cmake, g++-aarch64-linux-gnu and qemu-user"
	@echo "make clean        remove what was built, but for build/starter"

setup: $(READY)

# Compiles the log-mel kernel, and again when its sources change.
$(READY): pyproject.toml constraints.txt kernels/CMakeLists.txt $(wildcard kernels/native/*)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(DEVICE) $@

# The device's own install, which is small.
$(DEVICE): pyproject.toml constraints.txt kernels/CMakeLists.txt $(wildcard kernels/native/*)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

demo: $(DEVICE)
	$(BIN)/edgepin demo

# What it makes is kept under build/demo, so that a second run starts where the first one ended.
demo-train: $(READY)
	@mkdir -p $(DEMO)
	$(BIN)/edgepin render --out $(DEMO)/people --people 800 --captures 3
	$(BIN)/edgepin render --out $(DEMO)/strangers --people 50 --first 10000
	$(BIN)/edgepin train --config demo --data $(DEMO)/people --out $(DEMO)/run
	test -f $(DEMO)/demo.pin || $(BIN)/edgepin export $(DEMO)/run --out $(DEMO)/demo.pin
	$(BIN)/edgepin demo --bundle $(DEMO)/demo.pin --people $(DEMO)/strangers

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/pytest -n 2 --dist loadfile

PYTHON310 ?= python3.10
device-test:
	$(PYTHON310) -m venv build/device
	build/device/bin/pip install --quiet --disable-pip-version-check . pytest hypothesis
	build/device/bin/python -m pytest tests/sdk tests/attacks tests/house tests/kernels -p no:cacheprovider

test-aarch64: $(READY)
	EDGEPIN_TEST_AARCH64=1 $(BIN)/pytest tests/kernels/test_log_mel_native.py -k "aarch64 or neon"

# Tests that need an NVIDIA GPU; each says what it misses where there is none.
test-gpu: $(READY)
	$(BIN)/pytest tests/gpu

# Some minutes, on an otherwise idle machine.
BENCH ?= build/bench
bench: $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@mkdir -p $(BENCH)
	$(BIN)/pytest benchmarks --benchmark-only
	$(BIN)/python -m benchmarks.log_mel --json $(BENCH)/log_mel_cpu.json --chart $(BENCH)/log_mel_cpu.svg

fuzz: $(READY)
	@mkdir -p build
	$(BIN)/python -m tests.fuzz --cases 1000000 --seed 1 --checkpoint build/fuzz.json

crash: $(READY)
	$(BIN)/python -m tests.crash --full

# A folder with lfwcrop, librispeech, speech_unlabelled and trials: docs/starter.md. A GPU is used where torch sees one. The
# package's own starter is replaced by STARTER=sdk/edgepin/_starter.
DATA ?= data
STARTER ?= build/starter/package
starter: $(READY)
	$(BIN)/python -m edgepin_training.starter --faces $(DATA)/lfwcrop/train --voices $(DATA)/librispeech/train \
		--more-voices $(DATA)/speech_unlabelled --out build/starter
	$(BIN)/python -m edgepin_export.starter build/starter --data $(DATA) --out $(STARTER)

# The starter's run took minutes of a GPU, or hours.
clean:
	find build -mindepth 1 -maxdepth 1 ! -name starter -exec rm -rf {} +
