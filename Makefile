# make demo, make test: everything from a clean clone, installs included. make help lists the rest.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

ARCH := $(shell uname -m)
ifeq ($(ARCH),x86_64)
  # The CPU floor: half-precision and fused multiply-add in hardware. Linking with bfd marks the file, so that the loader
  # refuses an older CPU with a sentence instead of an illegal instruction.
  MARCH := -Xcc -march=x86-64-v3
  ISA_NOTE := -Xlinker -z -Xlinker x86-64-v3
endif
TRIPLE := $(shell gcc -dumpmachine 2>/dev/null || echo $(ARCH)-linux-gnu)

DIST := .build-dist
LIBRARY := build/libstockpot.so
PYTHON := .venv/bin/python
APT_PACKAGES := libopenblas-serial-dev libjansson-dev pkg-config gcc g++ binutils python3-venv
# Files of modules that import the C header: SwiftPM does not see that a header has changed.
HEADER_USERS := Sources/StockpotABI/Version.swift Tests/StockpotABITests

.PHONY: help
help: ## This list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

# ---- Installs

.PHONY: packages
packages: build/packages.stamp ## Install the Debian packages that are missing

build/packages.stamp:
	@mkdir -p build
	@missing=$$(for p in $(APT_PACKAGES); do dpkg -s $$p 2>/dev/null | grep -q '^Status: install ok' || echo $$p; done); \
	if [ -n "$$missing" ]; then \
	  echo "Installing Debian packages:" $$missing; \
	  sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	  $$sudo apt-get update -qq; \
	  DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq --no-install-recommends $$missing >build/apt.log 2>&1 \
	    || { tail -20 build/apt.log; exit 1; }; \
	fi
	@command -v swift >/dev/null || { echo "Swift 6.3 or newer is needed: https://www.swift.org/install"; exit 1; }
	@touch $@

.PHONY: venv
venv: build/venv.stamp ## Make .venv with the Python packages

build/venv.stamp: bindings/python/pyproject.toml build/packages.stamp
	@python3 -c 'import sys; sys.exit("Python 3.10 or newer is needed") if sys.version_info < (3, 10) else None'
	@[ -x $(PYTHON) ] || python3 -m venv .venv
	$(PYTHON) -m pip install --quiet --editable 'bindings/python[dev]'
	@touch $@

# ---- The library

SWIFT_SOURCES := $(shell find Sources include packaging -type f 2>/dev/null) Package.swift

.PHONY: library
library: $(LIBRARY) ## Build build/libstockpot.so, self-contained

# Both builds link the serial OpenBLAS statically, with one lock around its buffers (Sources/COpenBLASLock).
OPENBLAS := build/pkgconfig/openblas.pc
SWIFT := PKG_CONFIG_PATH=$(CURDIR)/build/pkgconfig swift
LOCK := -Xlinker --wrap=blas_memory_alloc

$(OPENBLAS): build/packages.stamp
	@mkdir -p $(@D)
	@printf '%s\n' 'Name: openblas' 'Description: OpenBLAS, linked statically and hidden' 'Version: 0' \
	  'Libs: -L/usr/lib/$(TRIPLE)/openblas-serial -l:libopenblas.a -l:libgfortran.so.5 -lm' >$@

$(LIBRARY): $(SWIFT_SOURCES) $(OPENBLAS)
	@find $(HEADER_USERS) -name '*.swift' -not -newer include/stockpot.h -exec touch {} +
	$(SWIFT) build -c release --product stockpot --scratch-path $(DIST) $(MARCH) $(LOCK) \
	  -Xswiftc -static-stdlib -Xswiftc -use-ld=bfd $(ISA_NOTE) -Xlinker -soname=libstockpot.so.0 \
	  -Xlinker --version-script=packaging/exports.map
	@mkdir -p build
	@strip -s -o $(LIBRARY).new $(DIST)/release/libstockpot.so
	@mv $(LIBRARY).new $(LIBRARY)
	@ln -sf libstockpot.so build/libstockpot.so.0
	@cp $(LIBRARY) bindings/python/src/stockpot/libstockpot.so.new
	@mv bindings/python/src/stockpot/libstockpot.so.new bindings/python/src/stockpot/libstockpot.so


# ---- Tests

TEST_FLAGS := --scratch-path .build-test $(MARCH) $(LOCK) -Xswiftc -use-ld=lld

.PHONY: test
test: lint header-test swift-test python-test ## Everything: format, types, header, Swift and Python tests

.PHONY: lint
lint: build/venv.stamp ## Format and type checks
	swift format lint --strict -r Sources Tests Package.swift
	$(PYTHON) -m ruff check bindings/python examples/python benchmarks docs
	$(PYTHON) -m ruff format --check bindings/python examples/python benchmarks docs
	cd bindings/python && ../../$(PYTHON) -m mypy --strict src

.PHONY: format
format: build/venv.stamp ## Put everything in the house format
	swift format -i -r Sources Tests Package.swift
	$(PYTHON) -m ruff check --fix bindings/python examples/python benchmarks docs
	$(PYTHON) -m ruff format bindings/python examples/python benchmarks docs

.PHONY: header-test
header-test: $(LIBRARY) ## The header alone in C11 and C++17, exported symbols, what the library needs, a host with its own BLAS
	Tests/Header/check.sh $(LIBRARY)

.PHONY: swift-test
swift-test: $(OPENBLAS) ## Swift tests: numeric ones at full size in release, and all in debug for its traps
	@find $(HEADER_USERS) -name '*.swift' -not -newer include/stockpot.h -exec touch {} +
	$(SWIFT) test -c release $(TEST_FLAGS)
	$(SWIFT) test $(TEST_FLAGS)

.PHONY: python-test
python-test: $(LIBRARY) build/venv.stamp ## Python tests, goldens among them
	$(PYTHON) -m pytest bindings/python/tests

.PHONY: goldens
goldens: $(LIBRARY) build/venv.stamp ## Golden results of public tools: make goldens DIR=folder [ONLY=method,method]
	@[ -n "$(DIR)" ] || { echo "usage: make goldens DIR=<folder with manifest.json> [ONLY=method,method]"; exit 2; }
	@$(PYTHON) bindings/python/tests/goldens/run.py "$(DIR)" $(if $(ONLY),--only "$(ONLY)")

# ---- For people

.PHONY: docs
docs: $(LIBRARY) build/venv.stamp ## Write docs/methods.md from the methods' schemas
	@$(PYTHON) docs/methods.py

.PHONY: demo
demo: $(LIBRARY) build/venv.stamp ## Merge five fine-tunes of a small vision transformer and measure the result
	@$(PYTHON) examples/python/digits_vit/demo.py

.PHONY: compare
compare: $(LIBRARY) build/venv.stamp ## Merge six task fine-tunes with every method and compare: a table and a picture, in two minutes
	@$(PYTHON) examples/python/digits_vit/compare.py

# ---- Figures: docs/performance.md says what each program measures

BENCHMARK_DATA := benchmarks/data
BENCHMARKS := build/benchmarks

.PHONY: benchmark-data
benchmark-data: build/venv.stamp ## Checkpoints for the benchmarks: a base and four fine-tunes of 1.4 GB each
	$(PYTHON) benchmarks/generate.py $(BENCHMARK_DATA)

$(BENCHMARK_DATA)/base:
	$(MAKE) benchmark-data

.PHONY: benchmark
benchmark: $(LIBRARY) build/venv.stamp | $(BENCHMARK_DATA)/base ## All benchmarks, on a quiet machine: tables, and JSON in build/benchmarks
	@mkdir -p $(BENCHMARKS)
	for group in kernels methods checkpoints growth rates cold; do \
	  $(PYTHON) benchmarks/$$group.py --json $(BENCHMARKS)/$$group.json; \
	done
	for method in linear ties yoyo_fusion; do $(PYTHON) benchmarks/memory.py $(BENCHMARK_DATA) --method $$method; done
	$(PYTHON) benchmarks/spectral.py

.PHONY: benchmark-peers
benchmark-peers: $(LIBRARY) build/venv.stamp | $(BENCHMARK_DATA)/base ## Against mergekit: make benchmark-peers [PEERS=folder to keep it in] [ONLY=linear,ties] [ROUNDS=5]
	@mkdir -p $(BENCHMARKS)
	$(PYTHON) benchmarks/peers.py --json $(BENCHMARKS)/peers.json $(if $(PEERS),--environment "$(PEERS)") \
	  $(if $(ONLY),--only "$(ONLY)") $(if $(ROUNDS),--rounds $(ROUNDS))

.PHONY: wheel
wheel: $(LIBRARY) build/venv.stamp ## A wheel of the binding with the library in it, under bindings/python/dist
	$(PYTHON) -m pip wheel --quiet --no-deps --wheel-dir bindings/python/dist bindings/python
	@ls bindings/python/dist

.PHONY: clean
clean: ## Remove what was built (not .venv)
	rm -rf build .build-dist .build-test demo-output bindings/python/src/stockpot/libstockpot.so bindings/python/dist
