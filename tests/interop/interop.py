"""What LangGraph's own library does with a Holdfast database.

Each line of standard input is `[VERB, DATABASE_URL, ARGUMENT...]` in JSON and is answered by one line: `{"ok": ...}` with what
the verb saw, or `{"error": TRACEBACK}`. The test that asks knows what has to be seen.
"""

import json
import sys
import traceback
from datetime import datetime, timezone
from operator import add
from typing import Annotated, TypedDict
from uuid import uuid4

from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.graph import END, START, StateGraph


def described(found):
    """A CheckpointTuple as JSON; bytes and other values that JSON does not have would fail here."""
    return {
        "config": found.config["configurable"],
        "parent": found.parent_config and found.parent_config["configurable"],
        "checkpoint": found.checkpoint,
        "metadata": found.metadata,
        "pending_writes": [list(write) for write in found.pending_writes],
    }


def set_up(saver):
    saver.setup()


def set_up_each(_, *urls):
    """Sets each database up as a library did that knew one migration more than the one before."""
    for version, url in enumerate(urls):
        with PostgresSaver.from_conn_string(url) as saver:
            saver.MIGRATIONS = saver.MIGRATIONS[: version + 1]
            saver.setup()


def read(saver, thread, *checkpoint_id):
    config = {"configurable": {"thread_id": thread, **dict(zip(["checkpoint_id"], checkpoint_id))}}
    found = saver.get_tuple(config)
    return found and described(found)


def listed(saver, thread, filter="{}", before=None, limit=None):
    """`list` with all that it can be asked for."""
    config = {"configurable": {"thread_id": thread}}
    before = before and {"configurable": {"checkpoint_id": before}}
    limit = limit and int(limit)
    return [described(found) for found in saver.list(config, filter=json.loads(filter), before=before, limit=limit)]


def extend(saver, thread):
    """Adds a checkpoint after the latest one, and writes after that, as a graph of the library would."""
    latest = saver.get_tuple({"configurable": {"thread_id": thread}})
    versions = latest.checkpoint["channel_versions"]
    new = saver.get_next_version(max(versions.values()), None)
    checkpoint = {
        **latest.checkpoint,
        "id": str(uuid6()),
        "ts": datetime.now(timezone.utc).isoformat(),
        "channel_values": {**latest.checkpoint["channel_values"], "note": "from Python", "n": [1]},
        "channel_versions": {**versions, "note": new, "n": new},
    }
    config = {"configurable": {"checkpoint_ns": "", **latest.config["configurable"]}}
    config = saver.put(config, checkpoint, {"source": "update", "step": 7, "parents": {}}, {"note": new, "n": new})
    task = str(uuid4())
    saver.put_writes(config, [("n", [2]), ("note", "pending")], task, "~path")
    return {"checkpoint_id": config["configurable"]["checkpoint_id"], "task_id": task}


class State(TypedDict, total=False):
    prompt: str
    sql: str
    result: str
    seen: Annotated[list[str], add]


def graph(saver):
    """A graph over the channels that a Holdfast run leaves."""

    def look(state: State):
        return {"seen": [state["result"]]}

    def ask(state: State):
        return {"result": state["result"] + " Indeed.", "seen": ["asked"]}

    builder = StateGraph(State)
    builder.add_node("look", look)
    builder.add_node("ask", ask)
    builder.add_edge(START, "look")
    builder.add_edge("look", "ask")
    builder.add_edge("ask", END)
    return builder.compile(checkpointer=saver)


def go_on(saver, thread):
    """Takes a graph through everything it does with a thread that it finds."""
    config = {"configurable": {"thread_id": thread}}
    compiled = graph(saver)
    found = compiled.get_state(config)
    before = len(list(compiled.get_state_history(config)))
    updated = compiled.update_state(config, {"seen": ["updated"]}, as_node="look")
    resumed = compiled.invoke(None, config)
    invoked = compiled.invoke({"prompt": "from Python"}, config)
    latest = compiled.get_state(config)
    return {
        "found": {"values": found.values, "next": list(found.next), "metadata": found.metadata},
        "history": [before, len(list(compiled.get_state_history(config)))],
        "updated": updated["configurable"]["checkpoint_id"],
        "resumed": resumed,
        "invoked": invoked,
        "latest": latest.config["configurable"]["checkpoint_id"],
    }


VERBS = {f.__name__: f for f in (set_up, set_up_each, read, listed, extend, go_on)}


def main():
    for line in sys.stdin:
        verb, url, *arguments = json.loads(line)
        try:
            with PostgresSaver.from_conn_string(url) as saver:
                answer = {"ok": VERBS[verb](saver, *arguments)}
                line = json.dumps(answer)
        except Exception:
            line = json.dumps({"error": traceback.format_exc()})
        print(line, flush=True)


if __name__ == "__main__":
    main()
