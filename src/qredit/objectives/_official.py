"""The official code that each method was compared with: repository, file and commit or release."""

from collections.abc import Mapping
from types import MappingProxyType

_VERL = "volcengine/verl verl/trainer/ppo/core_algos.py, release 0.9.1"
_TRL = "huggingface/trl trl/trainer/grpo_trainer.py, release 1.16"
_BOTH = f"{_VERL} and {_TRL}"

OFFICIAL: Mapping[str, str] = MappingProxyType(
    {
        "adactrl": "JoeYing1019/AdaCtrl verl/verl/workers/reward_manager/native_multi_threads.py@9a0b89f",
        "agentic_aepo": "compared, repository and commit not recorded",
        "bi_level_gae": "RAGEN-AI/RAGEN ragen/trainer/core_algos.py@0302838",
        "brpo": "sail-sg/AnytimeReasoner verl/verl/trainer/ppo/brpo.py@7e3f5bb",
        "canon": "biuboomc/CANON verl/trainer/ppo/core_algos.py@7d6f814",
        "cispo": _BOTH,
        "clip_cov": (
            "PRIME-RL/Entropy-Mechanism-of-RL verl/trainer/ppo/core_algos.py@6071b11 and volcengine/verl "
            "verl/trainer/ppo/core_algos.py, release 0.9.1"
        ),
        "dapo": (
            "volcengine/verl verl/trainer/ppo/core_algos.py, release 0.9.1, and its "
            "recipe/dapo/run_dapo_qwen2.5_32b.sh@e2e729f and huggingface/trl trl/trainer/grpo_trainer.py, release 1.16"
        ),
        "dapo_overlong": "volcengine/verl verl/workers/reward_manager/dapo.py@0bd4ecb",
        "delta": "RUCBM/DelTA verl-DelTA/verl/workers/actor/dp_actor.py@cf048bd",
        "dr_grpo": _BOTH,
        "empo": "QingyangZhang/EMPO trl/src/open_r1/rewards.py, compared, commit not recorded",
        "epo": "WujiangXu/EPO verl/workers/actor/dp_actor.py@5b6fa98",
        "gigpo": "langfengQ/DrMAS gigpo/core_gigpo.py@3b556f2",
        "grpo": _BOTH,
        "geometric_mean": "OpenBMB/RLPR verl/workers/reward_manager/prob.py@8490fca",
        "gspo": _BOTH,
        "istar": "Tongyi-ConvAI/Qwen-Character CharacterRL-iStar/istar/core_istar.py@1de87a2",
        "kl_cov": (
            "PRIME-RL/Entropy-Mechanism-of-RL verl/trainer/ppo/core_algos.py@6071b11 and volcengine/verl "
            "verl/trainer/ppo/core_algos.py, release 0.9.1"
        ),
        "llds": (
            "vengdeng/LLDS-On-Group-Relative-Policy-Optimization-Collapse-in-Search-R1 "
            "verl/workers/actor/dp_actor.py@c19a094"
        ),
        "logprob": "SalesforceAIResearch/LaTRO LaTRO/trainer/latro_trainer.py@ff18ac3",
        "ma_rlhf": "ernie-research/MA-RLHF applications/DeepSpeed-Chat/dschat/rlhf/ppo_trainer.py@807551d",
        "matchtir": "quchangle1/MatchTIR Code/verl/trainer/ppo/core_algos.py@f614ce1",
        "maxrl": "tajwarfahim/maxrl verl/trainer/ppo/core_algos.py@c0698eb",
        "maxrl_truncated": "tajwarfahim/maxrl verl/trainer/ppo/maclaurin.py@c0698eb",
        "mt_grpo": "SiliangZeng/Multi-Turn-RL-Agent verifiers/trainers/mt_grpo_env_trainer.py@7dbdd08",
        "nover": "thinkwee/NOVER reward_functions.py@cb1a4ef",
        "nsr": "TianHongZXY/RLVR-Decomposed verl/trainer/ppo/core_algos.py@a5d4e7c",
        "nthr": "compared, repository and commit not recorded",
        "one_shot_entropy": "ypwang61/One-Shot-RLVR verl/workers/actor/dp_actor.py, compared, commit not recorded",
        "opsd": "siyan-zhao/OPSD opsd_trainer.py@590ec26",
        "pass_at_k_shaped": "RUCAIBox/Passk_Training code/passk_adv.py@00474d7",
        "poad": "morning9393/ADRL mappo/utils/language_buffer.py@1a56809",
        "psr": "TianHongZXY/RLVR-Decomposed verl/trainer/ppo/core_algos.py@a5d4e7c",
        "pure": "CJReinforce/PURE openrlhf/utils/utils.py@a93a4bf",
        "pure_strict": (
            "CJReinforce/PURE verl/trainer/ppo/core_algos.py on its branch verl, compared, commit not recorded"
        ),
        "r3_rag": "Yuan-Li-FNLP/R3-RAG train/R3RAG_OpenRLHF/openrlhf/trainer/ppo_utils/experience_maker.py@3522314",
        "reinforce_pp": _VERL,
        "reinforce_pp_baseline": _VERL,
        "rloo": _BOTH,
        "rlpr": "OpenBMB/RLPR verl/workers/reward_manager/prob.py@8490fca",
        "siop": "dl-m9/SIOP verl/trainer/ppo/core_algos.py@33043ff",
        "siren": "Linn3a/siren verl/verl/workers/actor/dp_actor.py@fa59a8d",
        "slate": "algoprog/SLATE slate/training/step_level_algos.py@09223bc",
        "steer": "zz-haooo/STEER verl/trainer/ppo/core_algos.py@bfc8d2e",
        "tea_rl": "Qihoo360/Light-IF rl/verl/verl/trainer/ppo/core_algos.py@7068745",
        "tempo": "fatebreaker/tempo verl/trainer/ppo/core_algos.py@0a1c273",
        "thr": "compared, repository and commit not recorded",
        "top_entropy": _TRL,
        "tree_grpo": "AMAP-ML/Tree-GRPO verl/trainer/ppo/ray_trainer_ts.py@90b1709",
        "verifree": "sail-sg/VeriFree verifree.py@718b363",
        "vpr": "thu-nics/VPR gigpo/core_gigpo.py@7fa8008",
        "w_reinforce": "TianHongZXY/RLVR-Decomposed verl/trainer/ppo/core_algos.py@a5d4e7c",
    }
)
"""By the method's name; a method that is not here was compared with none."""
