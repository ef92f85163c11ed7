"""A request that waits until a test lets it go: FOLDER/NAME.started says it runs, FOLDER/NAME.go ends it."""

import asyncio
import pathlib
import time


def _files(folder, name):
    return pathlib.Path(folder, name + ".started"), pathlib.Path(folder, name + ".go")


def hold(folder, name):
    started, go = _files(folder, name)
    started.touch()
    while not go.exists():
        time.sleep(0.01)


async def hold_async(folder, name):
    started, go = _files(folder, name)
    started.touch()
    while not go.exists():
        await asyncio.sleep(0.01)
