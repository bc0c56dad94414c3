"""Systems of the field that are no objective: samplers, rules, warm starts, selection, diagnostics, what is missing.

Objectives are in the registry of the package; the two together are docs/methods.md (`methods_page.py`). Add a row here
for a new system. A registered rule without a row, a dead link and an ill-formed arXiv id fail a test.
"""

from dataclasses import dataclass
from typing import Literal, get_args

Slot = Literal[
    "likelihood",
    "reward",
    "group credit",
    "token credit",
    "turn credit",
    "penalty",
    "surrogate",
    "sampler",
    "prompt sampler",
    "controller",
    "warm start",
    "selection",
    "diagnostic",
]
SLOTS: tuple[Slot, ...] = get_args(Slot)
Known = Literal["paper+code", "paper", "second-hand", "own"]
NOT_MEASURED = "not measured"
NO_SOURCE = "none"


@dataclass(frozen=True)
class System:
    """A system as it is published or called, and what there is of it here.

    Attributes:
        name: as published; our own word where nothing was published.
        slot: which part of a run it is.
        what: what it does, in one line.
        source: "arXiv 2509.22601", or `NO_SOURCE`.
        known: where the formula was read.
        page: where it is told, from docs/, with the heading; empty where there is no part for it.
        missing: why there is no part for it, or what a user can do instead; empty where there is a page.
        official: repository of the official code that was read for it.
        rule: "OPTION NAME" of the registered rule that it is, such as "branching trees".
        effect: what was measured of it, in one line.
    """

    name: str
    slot: Slot
    what: str
    source: str
    known: Known
    page: str = ""
    missing: str = ""
    official: str = ""
    rule: str = ""
    effect: str = NOT_MEASURED

    def __post_init__(self) -> None:
        if bool(self.page) == bool(self.missing):
            raise ValueError(f"{self.name}: either a page, or why there is none")


SURROGATES = frozenset({"cispo", "clip_cov", "gspo"})
"""Registered objectives whose only news is the surrogate; the others' slots follow from their family."""

BRANCHING = "environments.md#episodes-that-branch"
SYSTEMS: tuple[System, ...] = (
    System(
        "Tree-GRPO's trees",
        "sampler",
        "`--branching trees()`: whole episodes, then branches at nodes drawn uniformly",
        "arXiv 2509.21240",
        "paper+code",
        BRANCHING,
        official="AMAP-ML/Tree-GRPO",
        rule="branching trees",
        effect="see [tree_grpo](objectives/tree_grpo.md)",
    ),
    System(
        "ARPO's branches",
        "sampler",
        "`--branching unsure_turns()`: an episode branches where a turn begins more unsurely than the first",
        "arXiv 2507.19849",
        "paper+code",
        BRANCHING,
        official="RUC-NLPIR/ARPO",
        rule="branching unsure_turns",
        effect="see [arpo](objectives/arpo.md)",
    ),
    System(
        "SLATE's and VPR's candidates",
        "sampler",
        "`--branching candidates()`: several continuations of one prefix at every turn, one of which is gone on from",
        "arXiv 2602.23440",
        "paper+code",
        BRANCHING,
        official="algoprog/SLATE",
        rule="branching candidates",
        effect="see [slate](objectives/slate.md) and [vpr](objectives/vpr.md)",
    ),
    System(
        "AnytimeReasoner's budgets",
        "sampler",
        "`truncated_answers(…)`: answers forced at several cuts of one rationale, for `brpo`",
        "arXiv 2505.13438",
        "paper+code",
        "fields.md#the-makers",
        official="sail-sg/AnytimeReasoner",
        effect="see [brpo](objectives/brpo.md)",
    ),
    System(
        "Proposals from the gold answer",
        "sampler",
        "`garl(proposal=hint(…))`: part of a group is drawn behind a prompt that shows the answer, and weighted for it",
        NO_SOURCE,
        "own",
        "objectives/garl.md#rationales-drawn-with-the-gold-answer-in-the-prompt",
        effect="[lab](theory.md#proposals-when-no-sample-of-the-prior-shows-success)",
    ),
    System(
        "SAGE, NuRL",
        "sampler",
        "`hint_failed`: groups without a success are drawn again with a hint made from the answer",
        "arXiv 2602.03143",
        "paper+code",
        "architecture.md#choices-worth-knowing",
        official="BaohaoLiao/SAGE",
    ),
    System(
        "DAPO's dynamic sampling",
        "prompt sampler",
        "`dynamic_sampling`: further prompts in place of groups of equal rewards",
        "arXiv 2503.14476",
        "paper+code",
        "architecture.md#choices-worth-knowing",
        official="volcengine/verl",
    ),
    System(
        "Choosing examples by a probe",
        "prompt sampler",
        "`qredit probe` measures each example, and training takes those that can teach",
        NO_SOURCE,
        "own",
        "probe.md#training-on-some-of-the-examples",
    ),
    System(
        "Guided q",
        "controller",
        "`garl(q=auto())`: the smallest q whose gradient is still well above Adam's ε",
        NO_SOURCE,
        "own",
        "guidance.md#q-auto",
        effect="[results](results.md#guided-runs)",
    ),
    System(
        "Collapse guard",
        "controller",
        "`guard`: a run that collapses goes back to its best checkpoint, or stops",
        NO_SOURCE,
        "own",
        "guidance.md#the-guard",
        effect="[results](results.md#the-guard)",
    ),
    System(
        "Fine-tuning on answers",
        "warm start",
        "`qredit sft`: imitation of reference answers, or of rationales and answers",
        NO_SOURCE,
        "own",
        "sft.md",
        effect="[results](results.md#a-real-model)",
    ),
    System(
        "Warm Up",
        "warm start",
        "rationales from elsewhere, unfiltered, are imitated, then RL on few examples: `qredit sft`, `qredit train`",
        "arXiv 2505.13718",
        "second-hand",
        "sft.md#what-is-shown",
    ),
    System(
        "SPECS",
        "warm start",
        "pairs of a GRPO run teach the form by DPO with a likelihood term, then GRPO proper: `qredit dpo`",
        "arXiv 2510.25801",
        "second-hand",
        "preferences.md#options",
    ),
    System(
        "DPO on a run's rollouts",
        "warm start",
        "`qredit dpo`: a run's right rollouts against its wrong ones",
        "arXiv 2305.18290",
        "paper+code",
        "preferences.md",
        official="huggingface/trl",
        effect="[one run](preferences.md#how-well-it-works)",
    ),
    System(
        "iStar's implicit rewards",
        "reward",
        "`implicit_prm()`: a copy of the policy that learns from outcomes rewards each turn",
        "arXiv 2509.19199",
        "paper+code",
        "fields.md#the-makers",
        official="Tongyi-ConvAI/Qwen-Character",
        effect="see [istar](objectives/istar.md)",
    ),
    System(
        "Coverage, cliff, escort",
        "diagnostic",
        "`qredit lab`: theorems about objectives, measured on policies that can be enumerated",
        NO_SOURCE,
        "own",
        "theory.md",
        effect="a measure, no method",
    ),
    System(
        "Credit-assignment survey's checklist",
        "diagnostic",
        "`qredit report --checklist`: fourteen items filled from run folders, with their holes",
        "arXiv 2604.09459",
        "second-hand",
        "architecture.md#command-line-and-run-folder",
        effect="a measure, no method",
    ),
    System(
        "SPEAR",
        "sampler",
        "`--replay spear(…)`: self-imitation, good rollouts of earlier steps once more; the reward `tool_use(…)` pays "
        "for tools at first",
        "arXiv 2509.22601",
        "paper+code",
        "replay.md#spear",
        official="TencentYoutuResearch/SPEAR",
        rule="replay spear",
    ),
    System(
        "CURE",
        "sampler",
        "`--drawing branch_at_entropy()`: branches that begin again before a token of high entropy",
        "arXiv 2508.11016",
        "paper+code",
        "drawing.md#branches-at-unsure-tokens",
        official="bytedance/CURE",
        rule="drawing branch_at_entropy",
    ),
    System(
        "AEPO (arbitrary entropy)",
        "controller",
        "`--drawing hold_entropy(…)`: entropy held at a target by good samples of another temperature",
        "arXiv 2510.08141",
        "paper+code",
        "drawing.md#entropy-at-a-target",
        official="597358816/AEPO",
        rule="drawing hold_entropy",
        effect=(
            "0.12, 0.23 and 0.28 nats at targets of 0.12, 0.2 and 0.3, 0.07 without it (3 seeds; "
            "[results](results.md#entropy-bands))"
        ),
    ),
    System(
        "T1's sampling",
        "sampler",
        "many rollouts at a high temperature, degenerate ones punished, for `t1`",
        "arXiv 2501.11651",
        "second-hand",
        "drawing.md#many-hot-rollouts",
        effect="see [t1](objectives/t1.md), with 16 rollouts",
    ),
    System(
        "1-shot RLVR",
        "prompt sampler",
        "one question, met in every step, long after it is solved",
        "arXiv 2504.20571",
        "paper+code",
        "drawing.md#one-question",
        official="ypwang61/One-Shot-RLVR",
    ),
    System(
        "Agentic AEPO's branches",
        "sampler",
        "`--branching balanced_turns(…)`: roots against branches by a pilot, few branches in a row",
        "arXiv 2510.14545",
        "second-hand",
        "environments.md#episodes-that-branch",
        rule="branching balanced_turns",
        effect="see [rules over turns](results.md#rules-over-turns-side-by-side)",
    ),
    System(
        "QwenLong-L1",
        "prompt sampler",
        "`--curriculum phases(…)`: phases of rising difficulty, hard prompts of earlier ones again",
        "arXiv 2505.17667",
        "second-hand",
        "data.md#curricula",
        rule="curriculum phases",
        effect=(
            "`grpo()` on half cold prompts ends at 63 %, without a rule at 89 %, on the cold ones alone at "
            "0; star graphs: none seen ([results](results.md#curricula))"
        ),
    ),
    System(
        "TAROT",
        "prompt sampler",
        "`--curriculum tiers(…)`: tiers that open one after the other; its tests are the reward `unit_tests`",
        "arXiv 2602.15449",
        "paper+code",
        "data.md#curricula",
        rule="curriculum tiers",
        effect="`grpo()` on half cold prompts ends at 61 %, without a rule at 89 % ([results](results.md#curricula))",
    ),
    System(
        "Success band",
        "prompt sampler",
        "`--curriculum success_band(…)`: prompts that are neither hopeless nor mastered",
        NO_SOURCE,
        "own",
        "data.md#curricula",
        rule="curriculum success_band",
        effect=(
            "`grpo()` on half cold prompts ends at 83 %, without a rule at 89 %; star graphs: none seen "
            "([results](results.md#curricula))"
        ),
    ),
    System(
        "Easier tasks mixed in",
        "prompt sampler",
        "`--curriculum mix_easier(…)`: a fixed share of easier prompts beside those to be learned",
        "arXiv 2510.03971",
        "second-hand",
        "data.md#curricula",
        rule="curriculum mix_easier",
        effect=(
            "`grpo()` ends at 65 % in place of 0 on half cold prompts, one of three seeds at 0; `garl` and "
            "star graphs: none seen ([results](results.md#curricula))"
        ),
    ),
    System(
        "Majority",
        "selection",
        "`--select majority()`: the answer that most samples give",
        NO_SOURCE,
        "own",
        "selection.md#rules-of-choice",
        rule="select majority",
        effect="what the others are held against ([results](results.md#selection-against-majority))",
    ),
    System(
        "Weighted majority",
        "selection",
        "`--select weighted_majority(…)`: votes weighted by a score",
        NO_SOURCE,
        "own",
        "selection.md#rules-of-choice",
        rule="select weighted_majority",
        effect=(
            "by the mean log-probability +0 to +14 points above the majority, by the answer's none seen "
            "([results](results.md#selection-against-majority))"
        ),
    ),
    System(
        "Best of N",
        "selection",
        "`--select best_of(…)`: the sample of the highest score",
        NO_SOURCE,
        "own",
        "selection.md#rules-of-choice",
        rule="select best_of",
        effect=(
            "by the mean log-probability +3 to +24 points above the majority, by the answer's -18 to -78 "
            "([results](results.md#selection-against-majority))"
        ),
    ),
    System(
        "Pairwise judge",
        "selection",
        "`--select pairwise(…)`: a judge compares samples in both orders",
        NO_SOURCE,
        "own",
        "selection.md#rules-of-choice",
        rule="select pairwise",
        effect="SmolLM2 as judge: none seen, -17 [-34, +2] points ([results](results.md#selection-against-majority))",
    ),
    System(
        "GenSelect",
        "selection",
        "`--select gen_select(…)`: a judge compares candidates in knockout games, and judges the rest",
        "arXiv 2511.13027",
        "paper+code",
        "selection.md#rules-of-choice",
        official="NVIDIA-NeMo/Skills",
        rule="select gen_select",
        effect="SmolLM2 as judge: none seen, -7 [-23, +8] points ([results](results.md#selection-against-majority))",
    ),
    System(
        "Budget forcing",
        "selection",
        "`--decode budget_forcing(…)`: thinking is made to go on",
        "arXiv 2501.19393",
        "second-hand",
        "selection.md#rules-of-decoding",
        rule="decode budget_forcing",
        effect="warm pocket-hotpot falls from 62 % to 2 % ([how](selection.md#rules-of-decoding))",
    ),
    System(
        "AdaCtrl's budget by the user",
        "selection",
        "`--decode begin_with('[Easy]')`: the tag is given, and the model thinks as long as it asks for",
        "arXiv 2505.18822",
        "paper+code",
        "selection.md#rules-of-decoding",
        official="JoeYing1019/AdaCtrl",
        rule="decode begin_with",
        effect=(
            "warm pocket-hotpot, which never saw the tags, falls from 62 % to 2 % "
            "([how](selection.md#rules-of-decoding))"
        ),
    ),
    System(
        "DiffAdapt",
        "selection",
        "`--decode by_difficulty(…)`: temperature and budget by the difficulty of a question",
        "arXiv 2510.19669",
        "second-hand",
        "selection.md#rules-of-decoding",
        rule="decode by_difficulty",
        effect=(
            "warm pocket-hotpot: -31 [-39, -23] points of m@16, thresholds not tuned "
            "([results](results.md#selection-against-majority))"
        ),
    ),
    System(
        "Conditional entropy reduction",
        "diagnostic",
        "`qredit probe --steps`: how much each step of a rationale lowers the entropy of the answer",
        "arXiv 2508.20395",
        "second-hand",
        "selection.md#what-the-steps-of-a-rationale-do",
        effect="a measure, no method",
    ),
    System(
        "Entropy law",
        "diagnostic",
        "`qredit report` fits R = -a·e^H + b and says what it foretells",
        "arXiv 2505.22617",
        "paper+code",
        "selection.md#the-entropy-law",
        effect="a measure, no method",
    ),
    System(
        "Light-IF's Entropy-SFT",
        "warm start",
        "`qredit sft --keep-tokens entropy_sft(…)`: imitation of the tokens of large loss and small entropy",
        "arXiv 2508.03178",
        "paper+code",
        "sft.md#which-tokens-count",
        official="Qihoo360/Light-IF",
        rule="keep-tokens entropy_sft",
    ),
    System(
        "Light-IF's reward",
        "reward",
        "the reward `constraints`: the share of a row's constraints that an answer keeps; its checks are ours",
        "arXiv 2508.03178",
        "paper",
        "rewards.md#constraints",
        effect="a reward for data of its own",
    ),
    System(
        "Unit tests",
        "reward",
        "the reward `unit_tests`: the weighted share of tests that a program passes, in a sandbox or not at all",
        NO_SOURCE,
        "own",
        "rewards.md#unit_tests",
        effect="a reward for data of its own",
    ),
    System(
        "Shrink and perturb",
        "warm start",
        "`qredit train --shrink λ --perturb σ`: weights that were trained before, shrunk and with noise",
        "arXiv 1910.08475",
        "paper",
        "sft.md#between-fine-tuning-and-training",
    ),
    System(
        "Muon",
        "controller",
        "`--optimizer muon()`: PyTorch's Muon on matrices, AdamW on the rest",
        NO_SOURCE,
        "own",
        "optimizers.md",
    ),
    System(
        "REX",
        "controller",
        "`--lr-schedule rex()`: a learning rate that stays higher than a linear decay and falls faster at the end",
        "arXiv 2107.04197",
        "paper",
        "optimizers.md",
        rule="lr-schedule rex",
    ),
    System(
        "Refined linear decay",
        "controller",
        "`--lr-schedule refined(…)`: a linear decay, refined by the gradient norms of an earlier run",
        "arXiv 2310.07831",
        "paper+code",
        "optimizers.md",
        official="facebookresearch/adaptive_scheduling",
        rule="lr-schedule refined",
    ),
    System(
        "RMT's next-token loss",
        "sampler",
        "`--drawing read_on()`: beside the rollouts of a prompt the text behind it, whose tokens `rmt` gives a weight",
        "arXiv 2509.24375",
        "second-hand",
        "drawing.md#the-text-behind-a-prompt",
        rule="drawing read_on",
        effect="as part of RMT's questions",
    ),
    System(
        "RMT's questions and tiers",
        "prompt sampler",
        "`qredit text-data`, `--curriculum shift_tiers(…)`: which token of a text comes next, sure ones first",
        "arXiv 2509.24375",
        "second-hand",
        "data.md#raw-text",
        rule="curriculum shift_tiers",
    ),
    System(
        "R3's beginnings, and sub-questions",
        "prompt sampler",
        "`qredit subgoal-data`, `--curriculum phases('difficulty', …)`: questions behind the first steps of their "
        "rationales, those with few steps left first; or the sub-questions of MuSiQue",
        "arXiv 2402.05808",
        "second-hand",
        "data.md#subgoals",
    ),
    System(
        "InT",
        "warm start",
        "`qredit intervene`, `qredit sft`: the first wrong step, rewritten with a solution in view, is imitated",
        "arXiv 2601.14209",
        "second-hand",
        "sft.md#corrected-beginnings",
    ),
    System(
        "AdaKD",
        "penalty",
        "`adaptive_kl`: distillation on the tokens where student and teacher differ most, each at its temperature",
        "arXiv 2510.11615",
        "paper+code",
        "distillation.md#adakd",
        official="SassyRong/AdaKD",
    ),
    System(
        "GroundedPRM",
        "sampler",
        "`qredit search`: a tree search over steps, checked by a tool, whose values label them for a reward model",
        "arXiv 2510.14942",
        "paper+code",
        "search.md#the-search",
        official="JerryPlain/GroundedPRMCode",
        effect="pocket-finqa: a reward model's area under the curve 0.68, none seen over the check's 0.65 "
        "(one seed; [how](search.md#training-from-it))",
    ),
    System(
        "Steps recomputed",
        "reward",
        "`--check arithmetic()`: a step is right if its equations of numbers hold, computed exactly",
        NO_SOURCE,
        "own",
        "search.md#checks",
        rule="check arithmetic",
        effect="as judge of [capo](objectives/capo.md) and [pure](objectives/pure.md)",
    ),
    System(
        "Steps judged",
        "reward",
        "`--check judge(…)`: a step is right if a chat model behind an endpoint says so",
        NO_SOURCE,
        "own",
        "search.md#checks",
        rule="check judge",
        effect="SmolLM2 as judge: no reply could be read ([results](results.md#a-small-model-as-the-judge-of-steps))",
    ),
    System(
        "TP-GRPO's pool",
        "sampler",
        "`--replay pool(…)`: rollouts of the last 50 steps are learned from, too, with the credit that "
        "[tp_grpo](objectives/tp_grpo.md) or another objective gave them. How many are drawn and how ratios are "
        "bounded is not told, so the user says it",
        "arXiv 2507.23317",
        "second-hand",
        "replay.md#pool",
        rule="replay pool",
    ),
    System(
        "For-Value",
        "diagnostic",
        "`qredit value`: the value of a training example from one forward pass, against held-out examples",
        "arXiv 2508.10180",
        "paper+code",
        "data.md#the-value-of-an-example",
        effect="wrong golds: none seen, areas of 0.47 to 0.51 ([results](results.md#values-of-training-examples))",
    ),
    System(
        "Controlled bifurcation tasks",
        "diagnostic",
        "the survey's protocol: tasks with one decisive step, on which credit rules are compared",
        "arXiv 2604.09459",
        "second-hand",
        missing=(
            "Task families, metadata and the tasks themselves were not found in what could be read. Near to them are "
            "[star graphs](data.md#generated-tasks), whose first edge decides, and the laws on policies whose every "
            "trajectory is listed."
        ),
    ),
    System(
        "CALM",
        "warm start",
        "an expert names flaws of a rationale in short hints, the model goes on from them and is fine-tuned on it",
        "arXiv 2510.04204",
        "second-hand",
        missing=(
            "It takes an expert model that intervenes inside a rationale, which no sampler here lets in. The two "
            "stages behind it, imitation and RL, are `qredit sft --rationale-column` and `qredit train`."
        ),
    ),
    System(
        "iRFT",
        "warm start",
        "rounds of rejection-sampling fine-tuning",
        NO_SOURCE,
        "second-hand",
        missing=(
            "No text of a protocol of this name was found, so none is claimed. Rounds are `rft()` in several runs, "
            "each from the model that the last one left: [rft](objectives/rft.md)."
        ),
    ),
    System(
        "DID",
        "diagnostic",
        "theory: what a preference data set encodes, and why that makes DPO's reward the right one",
        "arXiv 2505.23761",
        "second-hand",
        missing=(
            "It is a theory of preference data and changes no update: nothing is to be run. `qredit dpo` has the loss "
            "that it explains. Its equations were not found."
        ),
    ),
    System(
        "Deep-research survey",
        "diagnostic",
        "a survey of RL for agents that search and write reports: data, methods, systems",
        "arXiv 2509.06733",
        "second-hand",
        missing=(
            "A survey proposes no method. What it covers and is here: [tools and environments](environments.md), "
            "credit over turns, `qredit dpo`, verl. Report writing with a grader needs a judge as the reward."
        ),
    ),
)
