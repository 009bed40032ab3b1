# Two commands do everything on a fresh machine: `make demo` runs the main job, `make test` passes the tests.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DATA ?=

# One thread a process: on small shared machines several make small networks slower, not faster.
export OMP_NUM_THREADS ?= 1

.PHONY: demo test long check lint types docs fleet site notebooks package bench hostile schema clean

demo: $(READY)  ## Draw six prompts with the tiny zoo into demo/; no network, no GPU, no key.
	$(BIN)/diffusiongpt demo --out demo

test: $(READY)  ## Run the tests.
	$(BIN)/python -m pytest -q -rs -n auto --maxprocesses 4

long: $(READY)  ## Run the tests that take minutes: a fleet on a real Ray, and what it survives.
	$(BIN)/python -m pytest -q -rs -n 0 -m long

check: lint types docs test long package  ## All that CI runs.

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/lint-imports --no-cache
	! git grep -nPif .prose -- '*.py' '*.md' ':!CHANGELOG.md'  # habits of wording that a native speaker would not have

types: $(READY)
	$(BIN)/mypy

docs: $(READY)  ## Check that the documentation says what the code does.
	$(BIN)/python -m pytest -q tests/test_docs.py

PORT ?= 8000

fleet: $(READY)  ## Serve with three replicas on Ray and votes in PostgreSQL, until Ctrl-C; PORT=N chooses another port.
	$(BIN)/python examples/fleet.py $(PORT)

site: $(READY)  ## Build the documentation as a site into site/; nothing is fetched.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict  # with --quiet it would not count warnings
	! grep -rhoE '<(script|link|img)[^>]+(src|href)="https?://[^"]+' site --include=*.html

notebooks: $(READY)  ## Run the notebooks, each from a clean kernel.
	$(BIN)/python -m pytest -q tests/test_notebooks.py

package: $(READY)  ## Build the wheel, install it apart, and draw with it.
	$(BIN)/python -m build --no-isolation --wheel --outdir dist .
	$(BIN)/python tests/check_wheel.py dist

bench: $(READY)  ## Measure; DATA=DIR adds the benchmarks that need rating files.
	$(BIN)/python benchmarks/all.py $(if $(DATA),--data $(DATA))

hostile: $(READY)  ## Attack: a few generated inputs of strangers of each kind.
	$(BIN)/python benchmarks/hostile.py --short

schema: $(READY)  ## Write the JSON schema of zoo files, which editors complete from.
	$(BIN)/python -c "import json; from diffusiongpt.zoo.zoo_file import ZooFile; print(json.dumps(ZooFile.model_json_schema(), indent=2, ensure_ascii=False))" > docs/zoo.schema.json

clean:
	rm -rf $(VENV) dist demo site

# torch comes first and by its exact version, so that a CPU wheel at hand is taken instead of gigabytes of CUDA.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --group dev --editable .
	touch $(READY)
