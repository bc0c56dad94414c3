"""What speaks as vLLM's server does, and draws with transformers: for tests without vLLM."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from safetensors.torch import load_file

from qredit.rollouts.sampling_params import SamplingParams
from qredit.samplers.vllm.engine import EngineRow
from tests.support.vllm_engines import TransformersEngine, wide_model


class ToyServer:
    """A server on a free port of this machine, until `close`.

    Attributes:
        dies_after: completions, after which it does not answer any more; None is never.
        busy: requests that it does not answer, the next ones.
        info: what it says of itself.
    """

    def __init__(self, model="model", port=0, instance="first", **info):
        self.engine = TransformersEngine(wide_model())
        self.lock = threading.Lock()
        self.dies_after, self.drawn, self.paths = None, 0, []
        self.busy = 0
        config = {"model": str(model), "dtype": "torch.float32", "max_model_len": 240, "logprobs_mode": "raw_logprobs"}
        self.info = {"vllm_config": {"instance_id": instance, "model_config": config | info}}
        server = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *given):
                pass

            def do_GET(self):
                self.answer(server.get(self.path))

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.answer(server.post(self.path, body))

            def answer(self, found):
                if found is None:  # as a server that is gone
                    self.close_connection = True
                    return
                status, told = found
                text = json.dumps(told).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

        self.http = Server(("127.0.0.1", port), Handler)
        self.port = self.http.server_address[1]
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    @property
    def gone(self):
        return self.dies_after is not None and self.drawn >= self.dies_after

    def get(self, path):
        self.paths.append(path)
        if self.gone:
            return None
        if path == "/health":
            return 200, {}
        if path == "/v1/models":
            return 200, {"data": [{"id": "policy"}]}
        if path.startswith("/server_info"):
            return (404, {"detail": "Not Found"}) if self.info is None else (200, self.info)
        return 404, {}

    def post(self, path, body):
        self.paths.append(path)
        with self.lock:  # one model
            if self.gone or self.busy > 0:
                self.busy -= 1
                return None
            return getattr(self, path.rsplit("/", 1)[-1])(body)

    def completions(self, body):
        if body["model"] != "policy":
            return 404, {"error": "no such model"}
        self.drawn += 1
        stop = body.get("stop", [None])[0]
        row = EngineRow(tuple(body["prompt"]), body["max_tokens"], tuple(body["stop_token_ids"]), stop, body["seed"])
        (output,) = self.engine.generate([row], SamplingParams(temperature=body["temperature"]))
        choice = {"token_ids": list(output.ids), "logprobs": {"token_logprobs": list(output.logp)}}
        return 200, {"choices": [choice]}

    def collective_rpc(self, body):
        assert body["method"] == "reload_weights"
        files = sorted(Path(body["kwargs"]["weights_path"]).glob("*.safetensors"))
        if not files:
            return 500, {"error": "no weights"}
        self.engine.load((name, value) for file in files for name, value in load_file(file).items())
        return 200, {"results": [None]}

    def reset_prefix_cache(self, body):
        return 200, {"success": True}

    def close(self):
        self.http.shutdown()
        self.http.server_close()
