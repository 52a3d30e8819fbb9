# Each target is complete from a fresh clone: it needs Python 3.11 to 3.13 and make, nothing else.
PYTHON ?= python3
VENV := .venv
INSTALLED := $(VENV)/.installed
DEVELOPED := $(VENV)/.developed
PIP = $(VENV)/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt

# Beside the other packages, not among them: where JAX finds it and no TPU, it complains at every start.
LIBTPU = "libtpu; sys_platform == 'linux' and platform_machine == 'x86_64'"

.PHONY: demo test lint bench wheelhouse clean

demo: $(INSTALLED)  ## a bundled world in shadow of the real game: table, film, plot
	$(VENV)/bin/neural-env demo

test: lint  ## everything: lint, types, tests
	$(VENV)/bin/pytest --numprocesses 2 --dist loadfile --max-worker-restart 0

lint: $(DEVELOPED)
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

bench: $(DEVELOPED)  ## speed on this machine, one table in Markdown; run nothing beside it
	$(VENV)/bin/pytest benchmarks --benchmark-enable --benchmark-columns=median,iqr,ops,rounds \
		--benchmark-json $(VENV)/bench.json
	@$(VENV)/bin/python benchmarks/report.py $(VENV)/bench.json

# Here PYTHON is the version of the machine that the wheels are for: `make wheelhouse PYTHON=3.12`.
wheelhouse:  ## what training imports besides JAX, for a machine without a network; under 30 MB
	python3 runs/wheelhouse.py --python $(or $(filter 3.%,$(PYTHON)),3.12)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "neural_env needs Python 3.11 to 3.13, this is $$($(PYTHON) --version): make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	touch $@

# With the libraries that the environments are tried with. The tests need no GPU, and PyTorch without one is small.
$(DEVELOPED): $(INSTALLED)
	$(PIP) --editable '.[dev]'
	-$(PIP) --no-deps --upgrade --target $(VENV)/tpu $(LIBTPU)
	touch $@

clean:
	rm -rf $(VENV) demo wheelhouse
