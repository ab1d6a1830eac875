# The two commands of the README, and what keeps the project well. `make setup` needs Python 3.11 or later, git and make.
PYTHON ?= python3
BIN := .venv/bin
.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench wheel clean

help:
	@echo "make demo   the whole idea in minutes, on scikit-learn's digits"
	@echo "make test   the test suite"
	@echo "make check  formatting, lint, types, the order of the rooms"
	@echo "make bench  ratio tables against peers"
	@echo "make wheel  build the wheel and import it in a clean environment"
	@echo "make clean  remove what was built, the demo and the caches; .venv and runs stay"

setup: .venv/.ready

.venv/.ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup
	$(BIN)/buttress demo --out demo

# The suite starts hundreds of processes, which had better not compile the package each. It runs in as many as WORKERS
# says, of one thread each: they take whole stretches of it, for what a module's tests share is made in every process.
WORKERS ?= 2
test: setup
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} \
		$(BIN)/python -m pytest --numprocesses=$(WORKERS) --dist=worksteal

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.store

wheel: setup
	rm -rf build/wheel && mkdir -p build/wheel
	$(BIN)/uv build --quiet --wheel --out-dir build/wheel .
	$(PYTHON) -m venv --clear build/clean
	$(BIN)/uv pip install --quiet --python build/clean/bin/python --constraint constraints.txt build/wheel/*.whl
	cd build && clean/bin/python -c "import buttress; buttress.ReinforcedDataset; print('buttress', buttress.__version__)"
	cd build && clean/bin/buttress --help > /dev/null

# The demo's folder goes only where it bears the demo's mark: another one of that name is somebody's own.
CACHES := .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
clean:
	@for path in build dist $(CACHES) $$(test -f demo/.buttress-demo && echo demo) src/*.egg-info; do \
		if [ -e "$$path" ]; then echo "removing $$path"; rm -rf "$$path"; fi; \
	done
	@find . -path ./.venv -prune -o -path ./.git -prune -o -type d -name __pycache__ -print | while read -r path; do \
		echo "removing $$path"; rm -rf "$$path"; \
	done
