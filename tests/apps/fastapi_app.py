"""FastAPI with the in-progress gauge of prometheus-fastapi-instrumentator, which says goodbye once it was told to."""

from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from prometheus_fastapi_instrumentator import Instrumentator

import gate

app = FastAPI()
Instrumentator(should_instrument_requests_inprogress=True, inprogress_labels=True).instrument(app).expose(app)
draining = False


@app.post("/drain")
async def drain():
    global draining
    draining = True


@app.middleware("http")
async def say_goodbye(request: Request, call_next):
    response = await call_next(request)
    if draining:
        response.headers["Connection"] = "close"
    return response


@app.get("/hello")
async def hello():
    return "hello"


@app.get("/work")
async def work(folder: str, name: str):
    await gate.hold_async(folder, name)
    return {"done": name}


@app.post("/upload")
async def upload(request: Request, folder: str, name: str):
    gate.begin(folder, name)
    return {"bytes": sum([len(piece) async for piece in request.stream()])}


@app.get("/stream")
async def stream(folder: str, name: str):
    return StreamingResponse(gate.events_async(folder, name), media_type="text/event-stream")
