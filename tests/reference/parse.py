"""Reads metrics pages with the parsers of prometheus_client: a page a line in, its samples or the refusal a line out."""

import base64
import json
import re
import sys

from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as text

# The parser of the text format renames the samples of counters, to what OpenMetrics would call them. Gauges it reads
# in the very same way, and leaves them their names.
COUNTER = re.compile(r"^(\s*#\s+TYPE\s+\S+\s+)counter\s*$", re.MULTILINE)


def samples(page):
    content = base64.b64decode(page["content"]).decode()
    families = openmetrics(content) if page["openmetrics"] else text(COUNTER.sub(r"\1gauge", content))
    return [
        [sample.name, sorted((sample.labels or {}).items()), repr(float(sample.value))]
        for family in families
        for sample in family.samples
    ]


for line in sys.stdin:
    try:
        answer = {"samples": samples(json.loads(line))}
    except Exception as wrong:  # The parsers raise whatever they stumble over.
        answer = {"refused": f"{type(wrong).__name__}: {wrong}"}
    print(json.dumps(answer), flush=True)
