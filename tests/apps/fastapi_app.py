"""FastAPI with the in-progress gauge of prometheus-fastapi-instrumentator."""

from fastapi import FastAPI
from prometheus_fastapi_instrumentator import Instrumentator

import gate

app = FastAPI()
Instrumentator(should_instrument_requests_inprogress=True, inprogress_labels=True).instrument(app).expose(app)


@app.get("/work")
async def work(folder: str, name: str):
    await gate.hold_async(folder, name)
    return {"done": name}
