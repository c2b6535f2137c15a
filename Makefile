# Sets up .venv (Python packages, libturbojpeg) and runs the demo, the tests and the benchmarks in it.
# Nothing outside this folder is written: neither the system's Python nor its packages.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TURBOJPEG := $(VENV)/.turbojpeg

.PHONY: help setup demo serve test lint fuzz kills bench bench-long clean
.DEFAULT_GOAL := help

help:
	@echo 'make demo    set up, then: make videos, export a tiny CLIP (FAMILY=siglip: SigLIP), embed, evaluate and search'
	@echo 'make serve   open the demo to search in a browser, on this machine only (PORT=8000)'
	@echo 'make test    set up, then: ruff, mypy and the tests'
	@echo 'make fuzz    damage files of every kind for MINUTES=2; none may be read wrong, or end in a crash or a hang'
	@echo 'make kills   kill the long commands RUNS=100 times; --resume must end as if nothing had happened'
	@echo 'make setup   only set up $(VENV)'
	@echo 'make lint    ruff (rules and format) and mypy'
	@echo 'make bench   measure decoding, encoding and retrieval beside their peers, draw charts (takes long)'
	@echo 'make bench-long   the same on the long sets (an hour or more)'
	@echo 'make clean   remove $(VENV) and everything else that was made here'
	@echo 'PYTHON=python3.12 make ...   another Python than python3 (3.11 or newer)'

setup: $(READY) $(TURBOJPEG)

FAMILY ?= clip

demo: setup
	$(BIN)/python -m gridclip.benchmarks.demo.run --family $(FAMILY)

# The demo's videos, model and store are made first where they are missing.
PORT ?= 8000

serve: setup
	@test -f demo-output/store/store.json || $(MAKE) --no-print-directory demo
	$(BIN)/gridclip serve --store demo-output/store --model demo-output/model --video-dir demo-output/videos \
	  --temperature 0.1 --port $(PORT)

test: lint
	$(BIN)/pytest -n 2

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Adjustable: MINUTES, RUNS, SEED. Inputs and outputs that show a defect are kept under FINDS.
MINUTES ?= 2
RUNS ?= 100
SEED ?= 1
FINDS ?= fuzz-finds

fuzz: setup
	PYTHONPATH=tests $(BIN)/python -m fuzz --minutes $(MINUTES) --seed $(SEED) --finds $(FINDS) --json bench-fuzz.json

kills: setup
	PYTHONPATH=tests $(BIN)/python -m kills --runs $(RUNS) --seed $(SEED) --keep $(FINDS)/kills --json bench-kills.json

bench-long: LONG := --long
bench-long: SEARCHED := --super-images 1e4,1e5,1e6
bench-long: bench

bench: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	$(BIN)/gridclip bench decode $(LONG) --json benchmarks/results/decode_generated.json
	$(BIN)/gridclip bench sweep $(LONG) --json benchmarks/results/sweep.json
	$(BIN)/gridclip bench pipelines --device cpu --json benchmarks/results/pipelines_cpu.json
	$(BIN)/gridclip bench keyframes $(LONG) --json benchmarks/results/keyframes.json
	$(BIN)/gridclip bench decode-modes $(LONG) --json benchmarks/results/decode_modes.json
	$(BIN)/gridclip bench encode $(LONG) --json benchmarks/results/encode_cpu.json
	$(BIN)/gridclip bench end-to-end --json benchmarks/results/end_to_end.json
	$(BIN)/gridclip bench scaling $(LONG) --json benchmarks/results/scaling.json
	$(BIN)/gridclip bench moments --json benchmarks/results/moments.json
	$(BIN)/gridclip bench retrieve --json benchmarks/results/retrieve_cpu.json
	$(BIN)/gridclip bench search $(SEARCHED) --json benchmarks/results/search.json
	$(BIN)/python -m gridclip.benchmarks.charts
	$(BIN)/python -m gridclip.benchmarks.readme_table

clean:
	rm -rf $(VENV) build dist demo-output demo-output-siglip bench-output fuzz-finds *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

# The stamp is written last, so an interrupted set-up is taken up again; a broken .venv is made anew.
$(READY): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "gridclip needs Python 3.11 or newer, and $(PYTHON) is not: name another one, PYTHON=python3.12 make ..." >&2; exit 1; }
	@rm -f $@
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) || \
	  { echo "$(PYTHON) cannot make virtual environments (on Debian and Ubuntu: apt install python3-venv)" >&2; rm -rf $(VENV); exit 1; }
	@echo 'Installing the Python packages into $(VENV) (a few minutes the first time) ...'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[cpu,dali,remote,serve,test]'
	@mkdir -p $(VENV)/typecheck && ln -sfn ../.. $(VENV)/typecheck/gridclip
	@touch $@

# libturbojpeg decodes the JPEG super images. Where the system has none, Debian's package is unpacked (not installed)
# into .venv/lib, with lists and cache of its own, so neither root nor an "apt-get update" is needed.
$(TURBOJPEG): $(READY)
	@sh .ci/libturbojpeg.sh $(VENV)
	@touch $@
