# Every target is one `python -m course` command, see course/cli.py. `make help` lists them.

PYTHON ?= python3
VENV := .venv
TORCH_INDEX ?=
PIP_ARGS ?=

# What was given to make arrives in the environment unchanged: neither make nor the shell looks inside.
HANDED_OVER := PROMPT NEGATIVE STEPS SCALE SEED SAMPLER WIDTH HEIGHT COUNT INIT STRENGTH MASK EMA CHECKPOINT DEVICE \
	DTYPE OUT BLOCKS STAGE EXERCISE COPY ALL FILM FROM TOKENIZER COMPILE SLOW PART MINUTES PROMPTS ROUNDS WHICH \
	REPOSITORY CONTINUE
$(foreach v,$(HANDED_OVER),$(if $(filter-out undefined,$(origin $v)),$(eval override $v := $$(value $v))$(eval export $v)))

ifeq ($(filter-out 0,$(NO_VENV)),)
RUN := $(VENV)/bin/python -m course
SETUP := $(VENV)/.installed
else
RUN := $(PYTHON) -m course
SETUP := python-version
endif

.DEFAULT_GOAL := help
.PHONY: help generate test watch hint show doctor latency check mutants mutation train evaluate weights bench solution reset stubs python-version

help: python-version
	@$(PYTHON) -m course help

hint solution reset stubs: python-version
	@$(PYTHON) -m course $@

generate test watch show latency check mutants mutation train evaluate weights bench: $(SETUP)
	@$(RUN) $@

doctor: python-version
	@$(if $(filter python-version,$(SETUP)),$(PYTHON),$(firstword $(wildcard $(VENV)/bin/python) $(PYTHON))) -m course $@

python-version:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "This needs Python 3.11 or newer: say PYTHON=python3.12, for example.")'

$(VENV)/.installed: requirements.lock | python-version
	@echo "Setting up $(VENV), once: PyTorch and what the tests need (a download of 0.3 to 3 GB, depending on the system)."
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) \
		$(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$$(grep '^torch==' requirements.lock)"
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -r requirements.lock
	@touch $@
