"""Coroutines of environments that are written for asyncio, run from code that is not."""

import asyncio
import threading
from collections.abc import Coroutine
from functools import cache
from typing import Any, TypeVar

Result = TypeVar("Result")


def run_coroutine(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """What a coroutine returns or raises.

    All run in one loop, so that an environment keeps its connections and locks from step to step. The loop has a thread
    of its own: notebooks already run one in theirs.
    """
    return asyncio.run_coroutine_threadsafe(coroutine, _start_loop()).result()


@cache
def _start_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True, name="environments").start()
    return loop
