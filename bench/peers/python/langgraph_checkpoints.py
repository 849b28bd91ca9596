"""LangGraph's AsyncPostgresSaver: aput and aput_writes by several writers, each on its own thread, with its own saver and
with a connection of its own.

    langgraph_checkpoints.py setup                          makes the saver's tables
    langgraph_checkpoints.py write WRITERS WARM SECONDS     prints checkpoints a second, p50 and p99 in microseconds

The database is the one of DATABASE_URL.
"""

import asyncio
import os
import sys
import time

import uvloop
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from state import make

URL = os.environ["DATABASE_URL"]
# As the library's documentation has it, so that each connection prepares its statements once.
CONNECTION = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}


async def write(writers, warm, seconds):
    async with AsyncConnectionPool(URL, min_size=writers, max_size=writers, kwargs=CONNECTION, open=False) as pool:
        await pool.wait()
        latencies = []
        begin = time.perf_counter() + warm
        end = begin + seconds

        async def one(writer):
            saver, parent, number = AsyncPostgresSaver(pool), None, 0
            thread = {"thread_id": f"018f0000-0000-7000-8000-{writer:012}", "checkpoint_ns": ""}
            while time.perf_counter() < end:
                checkpoint, metadata, new_versions, writes, task = make(number)
                before = thread if parent is None else {**thread, "checkpoint_id": parent}
                asked = time.perf_counter()
                stored = await saver.aput({"configurable": before}, checkpoint, metadata, new_versions)
                await saver.aput_writes(stored, writes, task)
                now = time.perf_counter()
                if begin <= now < end:
                    latencies.append(now - asked)
                parent, number = checkpoint["id"], number + 1

        await asyncio.gather(*[one(writer) for writer in range(writers)])
    latencies.sort()
    quantile = lambda share: latencies[int((len(latencies) - 1) * share)] * 1e6
    print(f"{len(latencies) / seconds:.1f} {quantile(0.5):.0f} {quantile(0.99):.0f}")


if __name__ == "__main__":
    if sys.argv[1] == "setup":
        with PostgresSaver.from_conn_string(URL) as saver:
            saver.setup()
    else:
        writers, warm, seconds = int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
        uvloop.run(write(writers, warm, seconds))
