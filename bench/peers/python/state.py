"""Checkpoints of about 2.4 KB, as LangGraph hands them to a saver: two messages, a small object of findings, some
primitive channels, and two pending writes. Their texts are random words, which the database cannot compress away.

    state.py > FILE      writes them as JSON, for the other programs: the same state for all
"""

import json
import random
import sys
import uuid

from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.base.id import uuid6

VARIANTS = 64
_random = random.Random(7)
_words = ["".join(_random.choices("abcdefghijklmnopqrstuvwxyz", k=_random.randint(3, 9))) for _ in range(4000)]


def _text(length):
    text = ""
    while len(text) < length:
        text += _random.choice(_words) + " "
    return text[:length]


_texts = [(_text(350), _text(900), _text(150), _text(120)) for _ in range(VARIANTS)]


def version(number):
    return f"{number + 1:032}.0.{(number * 2654435761) % 10**16:016}"


def make(number):
    """The arguments of a saver's put and put_writes: checkpoint, metadata, new versions, writes, the writing task."""
    question, answer, findings, write = _texts[number % VARIANTS]
    v = version(number)
    checkpoint = empty_checkpoint()
    checkpoint["id"] = str(uuid6(clock_seq=number))
    checkpoint["channel_values"] = {
        "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
        "findings": {"summary": findings, "score": 0.73, "tags": ["growth", "margin", "risk"]},
        "step": number,
        "status": "running",
        "branch:to:review": None,
    }
    channels = ("__start__", "messages", "findings", "step", "status", "branch:to:review")
    checkpoint["channel_versions"] = {channel: v for channel in channels}
    checkpoint["versions_seen"] = {
        "__input__": {},
        "__start__": {"__start__": v},
        "collect": {"branch:to:collect": v},
        "review": {"branch:to:review": v},
    }
    checkpoint["updated_channels"] = ["messages", "findings", "step"]
    metadata = {"source": "loop", "step": number, "parents": {}}
    new_versions = {"messages": v, "findings": v, "step": v}
    writes = [("messages", [{"role": "assistant", "content": write}]), ("step", number + 1)]
    return checkpoint, metadata, new_versions, writes, str(uuid.uuid4())


if __name__ == "__main__":
    states = []
    for number in range(VARIANTS):
        checkpoint, metadata, _, writes, _ = make(number)
        states.append({"checkpoint": checkpoint, "metadata": metadata, "writes": writes})
    json.dump(states, sys.stdout)
