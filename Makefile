# drgn-pmem: everything a user or developer runs. Needs python3 with venv, and make.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TREE := build/tree
JOBS ?= auto

SPACE := $(subst ,, )
DISTRO := build/distro

# make test-distro [SUITE...]: the goals after it are the suites.
ifeq ($(firstword $(MAKECMDGOALS)),test-distro)
SUITES := $(wordlist 2,99,$(MAKECMDGOALS))
.PHONY: $(SUITES)
$(SUITES):
	@:
endif
SUITES := $(or $(SUITES),bullseye bookworm trixie trixie-backports)
# cloud, generic: the kernels for any machine, or providers: those with memory of every provider
FLAVOUR ?= cloud
# of these suites the providers are crashed, too
PROVIDERS := $(if $(filter cloud,$(FLAVOUR)),$(filter trixie,$(SUITES)))
SAMPLES_OF_cloud = ($(subst $(SPACE), or ,$(strip $(SUITES)))) and not generic
SAMPLES_OF_generic = $(subst $(SPACE), or ,$(strip $(addsuffix -generic,$(SUITES))))
SAMPLES_OF_providers = $(subst $(SPACE), or ,$(strip $(addsuffix -providers,$(SUITES))))

.PHONY: demo test test-distro test-live test-trim test-fleet lint typecheck layers bench bench-dump fuzz docs matrix vmcores clean

PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# What a user needs, then what the tests need in addition, as pyproject.toml declares them.
$(VENV)/.runs: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	touch $@

$(VENV)/.installed: $(VENV)/.runs
	$(PIP) --editable '.[dev]'
	touch $@

$(VENV)/.docs: $(VENV)/.runs
	$(PIP) --editable '.[docs]'
	touch $@

demo: $(VENV)/.runs
	$(BIN)/drgn-pmem --sample pmem-namespaces

test: lint
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup tests

# Debian's own kernels: fetched, booted and crashed (as root on Debian), then the tests of real dumps on each.
test-distro: $(VENV)/.installed
	FLAVOUR=$(FLAVOUR) vmcores/lab/x86_64/distro.sh $(DISTRO) $(SUITES)
	$(if $(PROVIDERS),FLAVOUR=providers vmcores/lab/x86_64/distro.sh $(DISTRO) $(PROVIDERS))
	DRGN_PMEM_SAMPLES=$(CURDIR)/$(DISTRO) $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup \
		tests/dumps tests/taken/test_modules.py \
		-k "$(SAMPLES_OF_$(FLAVOUR))"

# The product on running kernels: in a guest (-k) and from outside of it (--qemu), compared with the guest's
# own tools (as root on Debian; needs mmdebstrap, e2fsprogs, kmod, cpio, gcc, busybox-static).
LIVE := build/live
test-live: $(VENV)/.installed
	vmcores/lab/live/make.sh $(LIVE) $(LIVE_SUITE)
	DRGN_PMEM_LIVE=$(CURDIR)/$(LIVE)/result $(BIN)/python -m pytest -n 0 tests/live

# Every sample in every format, trimmed to every format, and read by other tools (crash where
# DRGN_PMEM_CRASH_VMLINUX names the vmlinux with all debug info). Takes an hour of one core.
test-trim: $(VENV)/.installed
	DRGN_PMEM_TRIM=all $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup tests/dumps/test_trim.py \
		tests/dumps/test_trim_read.py

# Every sample in every format as a fleet, on one worker and on two, with hostile dumps and killed
# workers. Takes some ten minutes of both cores.
test-fleet: $(VENV)/.installed
	DRGN_PMEM_FLEET=all $(BIN)/python -m pytest -n 0 -s tests/fleet

lint: $(VENV)/.installed typecheck layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The package as installed: commands/ inside drgn_pmem/, for mypy and import-linter.
$(TREE)/.made: $(wildcard drgn_pmem/*.py drgn_pmem/*/*.py drgn_pmem/*/*/*.py commands/*.py)
	rm -rf $(TREE) && mkdir -p $(TREE)
	cp -r drgn_pmem $(TREE)/ && cp -r commands $(TREE)/drgn_pmem/commands
	touch $@

typecheck: $(VENV)/.installed $(TREE)/.made
	cd $(TREE) && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml \
		--cache-dir $(CURDIR)/.mypy_cache -p drgn_pmem

layers: $(VENV)/.installed $(TREE)/.made
	cd $(TREE) && PYTHONPATH=. $(CURDIR)/$(BIN)/lint-imports --config $(CURDIR)/pyproject.toml \
		--cache-dir $(CURDIR)/.import_linter_cache

# Compared with the alternatives; bench-dump makes the large dump first.
bench: $(VENV)/.installed
	$(BIN)/python -m bench
	$(BIN)/python -m bench.formats
	$(BIN)/python -m bench.opening
	$(BIN)/python -m bench.scale
	$(BIN)/python -m bench.diagnose
	$(BIN)/python -m bench.trim

# With SIZE (512G, 6T): one of a larger machine, made of the large dump's real structures.
bench-dump: $(VENV)/.installed
ifdef SIZE
	$(BIN)/python -m bench.stretch $(SIZE)
else
	vmcores/lab/x86_64/bench-dump.sh build/vmcores/x86_64 build/bench-dump
endif

# Hostile bytes for MINUTES (tests/fuzz; what failed is kept in build/fuzz/failed). Then the property
# tests with a hundred times the examples, and every page that an answer was read from taken away, up
# to 5,000 a command and dump; these take as long as they take, and FUZZ_TESTS= leaves them out.
MINUTES ?= 10
FUZZ_TESTS ?= tests/unit tests/taken
fuzz: $(VENV)/.installed
	@$(PIP) --editable '.[fuzz]' || \
		echo "atheris cannot be installed for $$($(BIN)/python -V): no coverage-guided fuzzing"
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES)
	$(if $(FUZZ_TESTS),HYPOTHESIS_PROFILE=fuzz DRGN_PMEM_TAKEN=5000 \
		$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup $(FUZZ_TESTS))

# The pages that are made from the sources, the man pages (build/man) and the site (build/docs).
docs: $(VENV)/.docs
	$(BIN)/python docs/reference.py
	$(BIN)/python docs/api.py
	$(BIN)/python docs/examples.py
	$(BIN)/python docs/pictures.py
	$(BIN)/python docs/man.py
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs build/docs

# What each command answers on each dump, by the tests; failed ones are marked in the page.
matrix: $(VENV)/.installed
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup -p tests.matrix \
		--matrix docs/support-matrix.json tests/dumps -k "not mutations"; status=$$?; \
		$(BIN)/python docs/matrix.py && exit $$status

vmcores:
	vmcores/lab/make.sh

clean:
	rm -rf build $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
