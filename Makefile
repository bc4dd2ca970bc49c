# `make demo` and `make test` do all the set-up on a fresh machine with Python 3.11+ and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-scverse lint check docs bench bench-scale image-steps clean

demo: $(READY)
	rm -rf demo
	$(BIN)/stscale simulate demo/slices --slices 4 --spots 2000 --genes 500 --seed 7
	$(BIN)/stscale integrate demo/slices/*.zarr --domains 7 --out demo/run
	$(BIN)/stscale metrics demo/run --labels domain
	@echo "open demo/run/report.html"

# one thread a worker: two OpenMP runtimes on a busy machine cost more than a second core gives
test: lint
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

# SpatialData and squidpy, which want other versions of common packages, in an environment of their own
test-scverse: build/scverse/.ready
	build/scverse/bin/python -W ignore -c "import spatialdata, squidpy"
	OMP_WAIT_POLICY=PASSIVE build/scverse/bin/python -m pytest tests/test_spatialdata.py tests/test_scverse.py

build/scverse/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv build/scverse
	build/scverse/bin/python -m pip install -q -c constraints.txt -e '.[cpu,test,scverse]'
	touch $@

docs: $(READY)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[cpu,docs]'
	$(BIN)/python docs/build.py build/docs
	@echo "open build/docs/index.html"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[cpu,bench]'
	$(BIN)/python -m benchmarks.quality
	$(BIN)/python -m benchmarks.telescope
	$(BIN)/python -m benchmarks.foundation
	$(BIN)/python -m benchmarks.readme

# long, up to a million spots: for a quiet machine with room for the simulated slices
bench-scale: $(READY)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[cpu,bench]'
	$(BIN)/python -m benchmarks.scale
	$(BIN)/python -m benchmarks.published
	$(BIN)/python -m benchmarks.align
	$(BIN)/python -m benchmarks.methods
	$(BIN)/python -m benchmarks.readme

# the Dockerfile's steps in a virtual environment; downloads the image's packages
image-steps: $(READY)
	rm -rf build/image
	mkdir -p build
	$(BIN)/python docker/steps.py build/image

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[cpu,test]'
	touch $(READY)

clean:
	rm -rf $(VENV) demo build *.egg-info
