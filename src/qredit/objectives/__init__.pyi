"""What type checkers and editors see of this folder. Written by `make catalog`."""

from collections.abc import Mapping
from typing import Any

from qredit.objectives._method import Method as Method
from qredit.objectives.a2tgpo import a2tgpo as a2tgpo
from qredit.objectives.adactrl import adactrl as adactrl
from qredit.objectives.aem import aem as aem
from qredit.objectives.agentic_aepo import agentic_aepo as agentic_aepo
from qredit.objectives.attention_credit import attention_credit as attention_credit
from qredit.objectives.brpo import brpo as brpo
from qredit.objectives.canon import canon as canon
from qredit.objectives.capo import capo as capo
from qredit.objectives.cispo import cispo as cispo
from qredit.objectives.clip_cov import clip_cov as clip_cov
from qredit.objectives.d3s import d3s as d3s
from qredit.objectives.dapo import dapo as dapo
from qredit.objectives.dapo_overlong import dapo_overlong as dapo_overlong
from qredit.objectives.delta import delta as delta
from qredit.objectives.dr_grpo import dr_grpo as dr_grpo
from qredit.objectives.empg import empg as empg
from qredit.objectives.empo import empo as empo
from qredit.objectives.epo import epo as epo
from qredit.objectives.from_surrogate import from_surrogate as from_surrogate
from qredit.objectives.garl import garl as garl
from qredit.objectives.geometric_mean import geometric_mean as geometric_mean
from qredit.objectives.gigpo import gigpo as gigpo
from qredit.objectives.grpo import grpo as grpo
from qredit.objectives.grpo_passk import grpo_passk as grpo_passk
from qredit.objectives.gspo import gspo as gspo
from qredit.objectives.hicra import hicra as hicra
from qredit.objectives.igpo import igpo as igpo
from qredit.objectives.jepo import jepo as jepo
from qredit.objectives.kl_cov import kl_cov as kl_cov
from qredit.objectives.llds import llds as llds
from qredit.objectives.logprob import logprob as logprob
from qredit.objectives.ma_rlhf import ma_rlhf as ma_rlhf
from qredit.objectives.maxrl import maxrl as maxrl
from qredit.objectives.maxrl_truncated import maxrl_truncated as maxrl_truncated
from qredit.objectives.maxrl_uncentred import maxrl_uncentred as maxrl_uncentred
from qredit.objectives.mt_grpo import mt_grpo as mt_grpo
from qredit.objectives.nover import nover as nover
from qredit.objectives.nsr import nsr as nsr
from qredit.objectives.nthr import nthr as nthr
from qredit.objectives.one_shot_entropy import one_shot_entropy as one_shot_entropy
from qredit.objectives.opsd import opsd as opsd
from qredit.objectives.paft import paft as paft
from qredit.objectives.pass_at_k import pass_at_k as pass_at_k
from qredit.objectives.pass_at_k_shaped import pass_at_k_shaped as pass_at_k_shaped
from qredit.objectives.pear import pear as pear
from qredit.objectives.psr import psr as psr
from qredit.objectives.pure import pure as pure
from qredit.objectives.pure_strict import pure_strict as pure_strict
from qredit.objectives.reinforce_pp import reinforce_pp as reinforce_pp
from qredit.objectives.reinforce_pp_baseline import reinforce_pp_baseline as reinforce_pp_baseline
from qredit.objectives.rft import rft as rft
from qredit.objectives.rloo import rloo as rloo
from qredit.objectives.rlpr import rlpr as rlpr
from qredit.objectives.sft_answer import sft_answer as sft_answer
from qredit.objectives.sft_then_rlvr import sft_then_rlvr as sft_then_rlvr
from qredit.objectives.siren import siren as siren
from qredit.objectives.spine import spine as spine
from qredit.objectives.spine_v1 import spine_v1 as spine_v1
from qredit.objectives.star import star as star
from qredit.objectives.steer import steer as steer
from qredit.objectives.t_reg import t_reg as t_reg
from qredit.objectives.tea_rl import tea_rl as tea_rl
from qredit.objectives.tempo import tempo as tempo
from qredit.objectives.thr import thr as thr
from qredit.objectives.top_entropy import top_entropy as top_entropy
from qredit.objectives.tp_grpo import tp_grpo as tp_grpo
from qredit.objectives.verifree import verifree as verifree
from qredit.objectives.w_reinforce import w_reinforce as w_reinforce

REGISTRY: Mapping[str, Method[Any]]
