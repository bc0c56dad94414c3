"""Finished methods, one per file, and the registry that the command line and the text form read."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from qredit.objectives._method import Method
from qredit.objectives.adactrl import adactrl
from qredit.objectives.agentic_aepo import agentic_aepo
from qredit.objectives.attention_credit import attention_credit
from qredit.objectives.brpo import brpo
from qredit.objectives.canon import canon
from qredit.objectives.capo import capo
from qredit.objectives.cispo import cispo
from qredit.objectives.clip_cov import clip_cov
from qredit.objectives.d3s import d3s
from qredit.objectives.dapo import dapo
from qredit.objectives.dapo_overlong import dapo_overlong
from qredit.objectives.delta import delta
from qredit.objectives.dr_grpo import dr_grpo
from qredit.objectives.empo import empo
from qredit.objectives.epo import epo
from qredit.objectives.from_surrogate import from_surrogate
from qredit.objectives.garl import garl
from qredit.objectives.grpo import grpo
from qredit.objectives.gspo import gspo
from qredit.objectives.hicra import hicra
from qredit.objectives.kl_cov import kl_cov
from qredit.objectives.llds import llds
from qredit.objectives.ma_rlhf import ma_rlhf
from qredit.objectives.maxrl import maxrl
from qredit.objectives.maxrl_truncated import maxrl_truncated
from qredit.objectives.maxrl_uncentred import maxrl_uncentred
from qredit.objectives.nsr import nsr
from qredit.objectives.nthr import nthr
from qredit.objectives.one_shot_entropy import one_shot_entropy
from qredit.objectives.paft import paft
from qredit.objectives.pass_at_k import pass_at_k
from qredit.objectives.pass_at_k_shaped import pass_at_k_shaped
from qredit.objectives.pear import pear
from qredit.objectives.psr import psr
from qredit.objectives.pure import pure
from qredit.objectives.pure_strict import pure_strict
from qredit.objectives.reinforce_pp import reinforce_pp
from qredit.objectives.reinforce_pp_baseline import reinforce_pp_baseline
from qredit.objectives.rloo import rloo
from qredit.objectives.rlpr import rlpr
from qredit.objectives.sft_then_rlvr import sft_then_rlvr
from qredit.objectives.siren import siren
from qredit.objectives.spine import spine
from qredit.objectives.spine_v1 import spine_v1
from qredit.objectives.steer import steer
from qredit.objectives.t_reg import t_reg
from qredit.objectives.tea_rl import tea_rl
from qredit.objectives.tempo import tempo
from qredit.objectives.thr import thr
from qredit.objectives.top_entropy import top_entropy
from qredit.objectives.tp_grpo import tp_grpo
from qredit.objectives.verifree import verifree
from qredit.objectives.w_reinforce import w_reinforce

REGISTRY: Mapping[str, Method[Any]] = MappingProxyType(
    {
        made.name: made
        for made in (
            adactrl,
            agentic_aepo,
            attention_credit,
            brpo,
            canon,
            capo,
            cispo,
            clip_cov,
            d3s,
            dapo,
            dapo_overlong,
            delta,
            dr_grpo,
            empo,
            epo,
            from_surrogate,
            garl,
            grpo,
            gspo,
            hicra,
            kl_cov,
            llds,
            ma_rlhf,
            maxrl,
            maxrl_truncated,
            maxrl_uncentred,
            nsr,
            nthr,
            one_shot_entropy,
            paft,
            pass_at_k,
            pass_at_k_shaped,
            pear,
            psr,
            pure,
            pure_strict,
            reinforce_pp,
            reinforce_pp_baseline,
            rloo,
            rlpr,
            sft_then_rlvr,
            siren,
            spine,
            spine_v1,
            steer,
            t_reg,
            tea_rl,
            tempo,
            thr,
            top_entropy,
            tp_grpo,
            verifree,
            w_reinforce,
        )
    }
)

__all__ = [
    "REGISTRY",
    "Method",
    "adactrl",
    "agentic_aepo",
    "attention_credit",
    "brpo",
    "canon",
    "capo",
    "cispo",
    "clip_cov",
    "d3s",
    "dapo",
    "dapo_overlong",
    "delta",
    "dr_grpo",
    "empo",
    "epo",
    "from_surrogate",
    "garl",
    "grpo",
    "gspo",
    "hicra",
    "kl_cov",
    "llds",
    "ma_rlhf",
    "maxrl",
    "maxrl_truncated",
    "maxrl_uncentred",
    "nsr",
    "nthr",
    "one_shot_entropy",
    "paft",
    "pass_at_k",
    "pass_at_k_shaped",
    "pear",
    "psr",
    "pure",
    "pure_strict",
    "reinforce_pp",
    "reinforce_pp_baseline",
    "rloo",
    "rlpr",
    "sft_then_rlvr",
    "siren",
    "spine",
    "spine_v1",
    "steer",
    "t_reg",
    "tea_rl",
    "tempo",
    "thr",
    "top_entropy",
    "tp_grpo",
    "verifree",
    "w_reinforce",
]
