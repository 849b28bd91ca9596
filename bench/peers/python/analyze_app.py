"""What an analysis server is usually made of in Python: FastAPI and uvicorn (uvloop, httptools), JWT by HS256, a semaphore
that bounds the analyses, and a LangGraph of three nodes that do nothing, compiled with AsyncPostgresSaver over a pool, or with
AsyncSqliteSaver on a file in the current directory where there is no DATABASE_URL.

    analyze_app.py PORT

DATABASE_URL, JWT_SECRET, MAX_CONCURRENT_ANALYSES and POSTGRES_POOL_MAX as for Holdfast, and the same body of POST /analyze.
"""

import asyncio
import os
import sys
from contextlib import asynccontextmanager
from typing import TypedDict

import jwt
import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from langgraph.graph import END, START, StateGraph
from pydantic import BaseModel

SECRET = os.environ["JWT_SECRET"]
DATABASE_URL = os.environ.get("DATABASE_URL")


class State(TypedDict, total=False):
    prompt: str
    lengths: list[int]
    score: float
    report: dict


class Question(BaseModel):
    prompt: str
    thread_id: str


# The same three steps as those of noop_server.rs.
async def collect(state: State):
    return {"lengths": [len(word) for word in state["prompt"].split()]}


async def score(state: State):
    return {"score": sum(state["lengths"]) / max(len(state["lengths"]), 1)}


async def write(state: State):
    return {"report": {"text": f"score {state['score']:.2f}", "words": len(state["lengths"])}}


# Each is imported where it is used: neither server's memory is to hold the other's driver.
@asynccontextmanager
async def on_postgres():
    from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
    from psycopg.rows import dict_row
    from psycopg_pool import AsyncConnectionPool

    connection = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    size = int(os.environ["POSTGRES_POOL_MAX"])
    async with AsyncConnectionPool(DATABASE_URL, min_size=0, max_size=size, open=False, kwargs=connection) as pool:
        yield AsyncPostgresSaver(pool)


@asynccontextmanager
async def on_sqlite():
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    async with AsyncSqliteSaver.from_conn_string("checkpoints.sqlite") as saver:
        # As durable as Holdfast's; setup() turns the write-ahead log on.
        await saver.conn.execute("PRAGMA synchronous = FULL")
        yield saver


@asynccontextmanager
async def lifespan(app: FastAPI):
    app.state.slots = asyncio.Semaphore(int(os.environ["MAX_CONCURRENT_ANALYSES"]))
    async with on_postgres() if DATABASE_URL else on_sqlite() as saver:
        await saver.setup()
        graph = StateGraph(State)
        graph.add_node("collect", collect)
        graph.add_node("score", score)
        graph.add_node("write", write)
        graph.add_edge(START, "collect")
        graph.add_edge("collect", "score")
        graph.add_edge("score", "write")
        graph.add_edge("write", END)
        app.state.graph = graph.compile(checkpointer=saver)
        yield


app = FastAPI(lifespan=lifespan)
bearer = HTTPBearer()


async def user(credentials: HTTPAuthorizationCredentials = Depends(bearer)) -> str:
    try:
        claims = jwt.decode(credentials.credentials, SECRET, algorithms=["HS256"], options={"require": ["exp", "email"]})
    except jwt.PyJWTError as error:
        raise HTTPException(401, str(error))
    return claims["email"]


@app.get("/health/ready")
async def ready():
    return {"status": "ready"}


@app.post("/analyze")
async def analyze(question: Question, request: Request, email: str = Depends(user)):
    async with request.app.state.slots:
        thread = {"configurable": {"thread_id": f"{email}:{question.thread_id}"}}
        state = await request.app.state.graph.ainvoke({"prompt": question.prompt}, thread)
        return {"thread_id": question.thread_id, "status": "succeeded", "result": state["report"]["text"]}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), loop="uvloop", http="httptools", access_log=False, log_level="warning")
