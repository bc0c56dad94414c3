"""vLLM's server on a CPU, for tests: float32 weights stay where pushes reach them.

    python -m tests.support.vllm_server --model FOLDER --port N …

The engine runs in a process that is spawned, and imports this file again: so that is said outside of `main`.
"""

import os
import runpy
import sys

os.environ |= {
    "VLLM_SERVER_DEV_MODE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "TORCH_COMPILE_DISABLE": "1",
    "VLLM_NO_USAGE_STATS": "1",
}

from vllm import _custom_ops

_custom_ops._supports_onednn = False  # else they are packed for oneDNN and emptied

if __name__ == "__main__":
    sys.argv[0] = "api_server"
    runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__")
