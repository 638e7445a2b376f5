# make demo, make test: each makes .venv with what it needs. PYTHON= chooses the interpreter, TORCH= the torch
# (a pin in PIP_CONSTRAINT is left to pip); a torch that .venv already holds is kept where it satisfies TORCH.
PYTHON ?= python3
TORCH ?= $(if $(PIP_CONSTRAINT),torch,torch==2.13.0)
VENV := .venv
BIN := $(VENV)/bin
SOURCES := setup.py pyproject.toml MANIFEST.in \
    $(shell find fastllie kernels training csrc -type f -not -name '*.pyc' -not -name '*.so')
PHOTO := docs/photos/nyc-2nd-ave.jpg

# $(call aloud,WHAT,COMMAND): says what it does, and every few seconds that it still does. Of the seconds that the
# clock sleeps at the end nobody waits, for it holds no output
EVERY := 5
aloud = @echo "$(1)"; \
    (waited=0; while sleep $(EVERY) >/dev/null 2>&1; do \
        waited=$$((waited + $(EVERY))); echo "    $(1): $$waited s"; done) & clock=$$!; \
    $(2); status=$$?; kill $$clock 2>/dev/null; exit $$status

.PHONY: demo test lint hostile gpu cuda-on-cpu wheels docs clean

demo: $(VENV)/installed
	$(BIN)/fastllie enhance $(PHOTO) -o demo --compare
	@echo "before | after: $(CURDIR)/demo/$(notdir $(PHOTO))"

test: $(VENV)/installed-for-development
	$(BIN)/pytest -n auto --dist worksteal

lint: $(VENV)/installed-for-development
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/clang-format --dry-run -Werror $(shell find csrc -type f)
	cd $(VENV) && bin/mypy --config-file ../pyproject.toml

# more than 10,000 damaged files of all formats, in about a minute
hostile: $(VENV)/installed-for-development
	FASTLLIE_HOSTILE=400 $(BIN)/pytest tests/images/test_hostile.py

# the CUDA kernels on this machine's CPU: every type and layout, sanitizers, and the machine code of three
# architectures where nvcc is. Half an hour on two cores
SWEEP := $(BIN)/python tests/cuda_on_cpu/sweep.py
library = $(shell g++ -print-file-name=$(1))
cuda-on-cpu: $(VENV)/installed-for-development
	$(BIN)/pytest -n auto -k cuda
	$(SWEEP) --seeds 1 2 --every 3
	LD_PRELOAD="$(call library,libasan.so) $(call library,libubsan.so) $(call library,libstdc++.so)" \
	    ASAN_OPTIONS=detect_leaks=0 $(SWEEP) --kind sanitized --every 7
	FASTLLIE_ARCHITECTURES="80 90 120" $(BIN)/pytest tests/cuda_on_cpu/test_budget.py

# with PYTHON itself, whose torch is the one for this machine's GPU
gpu:
	$(PYTHON) benchmarks/gpu.py

# for five platforms, by zig; see release/wheels.py, whose arguments WHEELS may have. Some ten minutes on two cores
WHEELS :=
wheels: $(VENV)/installed-for-development
	$(BIN)/pip install --quiet ziglang auditwheel wheel
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python release/wheels.py $(WHEELS)

# the documentation as a site, in site/, by what the extra `docs` names
DOCS := "mkdocs-material>=9.5" "mkdocstrings[python]>=0.27"
docs: $(VENV)/installed-for-development
	$(BIN)/pip install --quiet $(DOCS)
	$(BIN)/mkdocs build --strict

# pip builds a local project anew whenever it is named, so each stamp names it once
$(VENV)/installed: $(VENV)/torch $(SOURCES)
	$(call aloud,compiling and installing fastllie (a minute or two),$(BIN)/pip install --quiet .)
	touch $@

# in a variable, for a comma ends an argument of call
ALL := ".[test,lint]"
$(VENV)/installed-for-development: $(VENV)/torch $(SOURCES)
	$(call aloud,compiling fastllie and installing it with its tools,$(BIN)/pip install --quiet $(ALL))
	touch $@ $(VENV)/installed

$(VENV)/torch:
	$(call aloud,making $(VENV),$(PYTHON) -m venv $(VENV))
	$(call aloud,installing $(TORCH),$(BIN)/pip install --quiet "$(TORCH)")
	touch $@

clean:
	rm -rf $(VENV) build dist demo *.egg-info
