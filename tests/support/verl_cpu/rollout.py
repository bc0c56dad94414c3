"""A rollout server of verl on a CPU: a transformers model in a Ray actor, one for each worker."""

import asyncio
import json
import os
from pathlib import Path

import ray
import torch
from transformers import AutoModelForCausalLM
from verl.workers.rollout.base import BaseRollout
from verl.workers.rollout.replica import RolloutReplica, TokenOutput

from tests.support.verl_cpu.environment import FOLDER

PLAYED = "played.json"


@ray.remote(num_cpus=0)
class CpuServer:
    """Draws token by token; the seed of a request says all of its draws.

    FOLDER/played.json may hold ids and log-probabilities for requests, by their seed: these are given as they are.
    """

    def __init__(self, path, rank):
        self.rank = rank
        torch.set_num_threads(1)
        self.model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        self.version = 0
        file = Path(os.environ.get(FOLDER, "")) / PLAYED
        self.played = json.loads(file.read_text()) if file.is_file() else {}

    async def generate(self, prompt_ids, sampling_params, request_id, image_data=None, video_data=None, **kwargs):
        seed = str(sampling_params["seed"])
        ids, logps = self.played[seed] if seed in self.played else draw(self.model, prompt_ids, sampling_params)
        return TokenOutput(
            token_ids=ids, log_probs=logps, stop_reason="completed", extra_fields={"global_steps": self.version}
        )

    async def load(self, weights, version):
        state = {name: torch.tensor(value) for name, value in weights.items()}
        self.model.load_state_dict(state, strict=False)
        self.version = version
        if FOLDER in os.environ:
            torch.save(self.model.state_dict(), Path(os.environ[FOLDER]) / f"weights-{version}-{self.rank}.pt")

    async def weights(self):
        return {name: value.numpy() for name, value in self.model.state_dict().items()}

    async def wake_up(self):
        pass

    async def sleep(self):
        pass

    async def abort_all_requests(self, reject_request=False):
        pass

    async def resume_generation(self):
        pass

    async def clear_kv_cache(self):
        pass


@torch.no_grad()
def draw(model, prompt, params):
    """Ids and log-probabilities (at the temperature) up to one of the ends, without text: ours looks at ids itself."""
    generator = torch.Generator().manual_seed(int(params["seed"]) % (1 << 63))
    ids, logps, cache, given = [], [], None, torch.tensor([list(prompt)])
    stops = set(params.get("stop_token_ids") or ())
    for _ in range(params["max_tokens"]):
        out = model(given, past_key_values=cache, use_cache=True)
        cache, logits = out.past_key_values, out.logits[0, -1].float()
        temperature = params.get("temperature", 1.0)
        logp = torch.log_softmax(logits / temperature if temperature else logits, -1)
        token = int(torch.multinomial(logp.exp(), 1, generator=generator)) if temperature else int(logp.argmax())
        ids.append(token)
        logps.append(float(logp[token]))
        if token in stops:
            break
        given = torch.tensor([[token]])
    return ids, logps


class CpuReplica(RolloutReplica):
    """A server for each worker, found again by its name."""

    async def launch_servers(self):
        name = f"cpu_server_{self.replica_rank}"
        path = self.model_config.path
        self._server_handle = CpuServer.options(name=name, max_concurrency=64).remote(path, self.replica_rank)
        self.servers = [self._server_handle]
        self._server_address = name
        await asyncio.gather(*[server.wake_up.remote() for server in self.servers])


class CpuServerAdapter(BaseRollout):
    """The trainer's side: gives its server the weights."""

    async def resume(self, tags):
        pass

    async def release(self):
        pass

    async def update_weights(self, weights, global_steps=None, **kwargs):
        server = ray.get_actor(f"cpu_server_{torch.distributed.get_rank()}")
        own = {name: value.detach().float().cpu().numpy() for name, value in weights}
        await server.load.remote(own, int(global_steps or 0))
