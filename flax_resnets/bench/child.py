"""What runs in a contender's process: prepare, warm up, then one timed turn for every line that comes in.

A script of the standard library alone, for the python of any environment. Its argument is JSON:

    {"paths": [...], "turn": seconds, "tasks": [{"file": path, "options": {...}}, ...]}

`paths` go to the front of `sys.path`. Each task's file defines `prepare(**options)`, which returns `repeat` and a dict
of facts worth recording, or a function that gives them once the work has been done; `repeat(n)` does the work n times
over and comes back when the last is done. First the process
writes one line, a JSON list with for each task `{"steps", "first_seconds", "facts"}` or `{"error"}`. After that each
line it reads is the number of a task, and is answered by a line of JSON: `{"seconds"}` for one repetition, the mean of
the turn's, or `{"error"}`. A turn begins with a repetition that is not timed. The process ends where its input ends.
"""

import importlib.util
import json
import os
import sys
import time


def main():
    """Serve the parent."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints is not an answer
    order = json.loads(sys.argv[1])
    sys.path[:1] = order["paths"]  # in place of this file's own directory
    ready, serving = [], []
    for number, task in enumerate(order["tasks"]):
        try:
            repeat, facts = _load(task["file"], f"contender_{number}").prepare(**task["options"])
            steps, first = _warm_up(repeat, order["turn"])
            serving.append((repeat, steps))
            facts = facts() if callable(facts) else facts
            ready.append({"steps": steps, "first_seconds": first, "facts": facts})
        except Exception as error:
            serving.append(None)
            ready.append({"error": _in_a_line(error)})
    print(json.dumps(ready), file=answers)
    for line in sys.stdin:
        repeat, steps = serving[int(line)]
        try:
            # Memory that lay free while others had their turns may be back with a virtual machine's host.
            repeat(1)
            answer = {"seconds": _timed(repeat, steps) / steps}
        except Exception as error:
            answer = {"error": _in_a_line(error)}
        print(json.dumps(answer), file=answers)


def _load(path, name):
    """The module in a file, under a name that no other has: dataclasses look theirs up."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _warm_up(repeat, turn):
    """How many repetitions make a turn, and what the very first took, compilation and all."""
    first = _timed(repeat, 1)
    _timed(repeat, 1)  # memory is still being laid out
    return max(1, round(turn / _timed(repeat, 1))), first


def _timed(repeat, steps):
    started = time.perf_counter()
    repeat(steps)
    return time.perf_counter() - started


def _in_a_line(error):
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


if __name__ == "__main__":
    main()
