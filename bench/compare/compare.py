"""One run of the Python SDK at the work of compare: settings as JSON on standard input, calls per second on standard output."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from getstack import AsyncStack, Stack

URL = "https://slack.com/api/chat.postMessage"
BODY = {"channel": "#support", "text": "On it"}


def sequential(settings: dict[str, Any]) -> float:
    with Stack(api_key=settings["api_key"], base_url=settings["url"]) as stack:
        return rate(settings["calls"], lambda: [call(stack, settings) for _ in range(settings["calls"])])


def threads(settings: dict[str, Any]) -> float:
    with Stack(api_key=settings["api_key"], base_url=settings["url"]) as stack:
        with ThreadPoolExecutor(settings["workers"]) as pool:
            return rate(
                settings["calls"],
                lambda: list(pool.map(lambda _: call(stack, settings), range(settings["calls"]))),
            )


def tasks(settings: dict[str, Any]) -> float:
    async def run() -> float:
        async with AsyncStack(api_key=settings["api_key"], base_url=settings["url"]) as stack:
            turns = iter(range(settings["calls"]))

            async def worker() -> None:
                for _ in turns:
                    answer = await stack.proxy.post("slack", URL, body=BODY, passport_token=settings["token"])
                    assert answer.status == 200, answer

            began = time.perf_counter()
            await asyncio.gather(*(worker() for _ in range(settings["workers"])))
            return settings["calls"] / (time.perf_counter() - began)

    return asyncio.run(run())


def call(stack: Stack, settings: dict[str, Any]) -> None:
    answer = stack.proxy.post("slack", URL, body=BODY, passport_token=settings["token"])
    assert answer.status == 200, answer


def rate(calls: int, work: Any) -> float:
    began = time.perf_counter()
    work()
    return calls / (time.perf_counter() - began)


if __name__ == "__main__":
    given = json.load(sys.stdin)
    ways = {"sequential": sequential, "threads": threads, "tasks": tasks}
    json.dump({"calls_per_second": ways[given["way"]](given)}, sys.stdout)
