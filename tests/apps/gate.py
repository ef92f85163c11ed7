"""A request that waits until a test lets it go: FOLDER/NAME.started says it runs, FOLDER/NAME.go ends it.

A stream says something every 100 ms until then, or, where it is to be silent, once.
"""

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


def events(folder, name, silent=False):
    started, go = _files(folder, name)
    started.touch()
    yield b"data: tick\n\n"
    while not go.exists():
        time.sleep(0.1)
        if not silent:
            yield b"data: tick\n\n"


async def events_async(folder, name):
    started, go = _files(folder, name)
    started.touch()
    while not go.exists():
        yield b"data: tick\n\n"
        await asyncio.sleep(0.1)


def begin(folder, name):
    """What lasts for as long as its client likes."""
    _files(folder, name)[0].touch()
