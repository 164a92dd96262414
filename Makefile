# Every target is one `python -m course` command, see course/cli.py. `make help` lists them.

PYTHON ?= python3

# What was given to make arrives in the environment unchanged: neither make nor the shell looks inside.
COURSE_GIVEN := $(foreach v,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $v))),$v))
export COURSE_GIVEN
$(foreach v,$(COURSE_GIVEN),$(eval override $v := $$(value $v))$(eval export $v))

.DEFAULT_GOAL := help
.SUFFIXES:

Makefile: ;
FORCE: ;

%: FORCE
	@$(PYTHON) -m course $@
