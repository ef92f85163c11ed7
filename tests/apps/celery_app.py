"""A Celery worker that keeps the number of its tasks in a file, and takes no more of them once the pod drains.

    celery -A celery_app worker               # the worker
    python celery_app.py FOLDER NAME...       # sends a task for each name, which lasts until the gate lets it go
"""

import os
import pathlib
import sys
import threading
import time

from celery import Celery
from celery.signals import worker_ready
from celery.worker import state

import gate

app = Celery("shop", broker=os.environ["BROKER"])


@app.task(name="work")
def work(folder, name):
    gate.hold(folder, name)


INFLIGHT = pathlib.Path(os.environ.get("INFLIGHT", "/run/work/inflight"))
DRAINING = pathlib.Path(os.environ.get("DRAINING", "/run/work/draining"))


@worker_ready.connect
def watch(sender, **_):
    """Runs in the worker's main process, which knows the tasks of all its children, and outlives each of them."""

    def count():
        takes_tasks = True
        while True:
            if takes_tasks and DRAINING.exists():
                app.control.cancel_consumer("celery", destination=[sender.hostname])
                takes_tasks = False
            # Written aside and renamed, so that no reader sees half of it.
            aside = INFLIGHT.with_suffix(".new")
            aside.write_text(f"{len(state.reserved_requests)}\n")
            aside.rename(INFLIGHT)
            time.sleep(0.1)

    threading.Thread(target=count, daemon=True).start()


if __name__ == "__main__":
    for name in sys.argv[2:]:
        work.delay(sys.argv[1], name)
