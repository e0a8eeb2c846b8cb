"""The program of a contender's process: prepare, warm up, then run one timed turn for each line of input.

It uses the standard library alone, so that the python of any environment can run it. Its argument is JSON:

    {"paths": [...], "turn": seconds, "tasks": [{"file": path, "options": {...}}, ...]}

`paths` go to the front of `sys.path`. Each task's file defines `prepare(**options)`, which returns `repeat` and a dict
of facts to record, or a function that returns them once the work has been done. `repeat(n)` does the work n times and
returns when the last one is done. First the process writes one line, a JSON list with an entry for each task:
`{"steps", "first_seconds", "facts"}` or `{"error"}`. After that each line of input is the number of a task. The answer
is a line of JSON: `{"seconds"}`, the mean time of one repetition in the turn, or `{"error"}`. A turn begins with a
repetition that is not timed. The process ends when its input ends.
"""

import importlib.util
import json
import os
import sys
import time


def main():
    """Runs the tasks and answers the parent."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # so that output of libraries does not mix with the answers
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
            # The host of a virtual machine may have taken back free memory meanwhile: this repetition gets it again.
            repeat(1)
            answer = {"seconds": _timed(repeat, steps) / steps}
        except Exception as error:
            answer = {"error": _in_a_line(error)}
        print(json.dumps(answer), file=answers)


def _load(path, name):
    """Loads a file as a module, under a unique name in `sys.modules`, where dataclasses look up their module."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _warm_up(repeat, turn):
    """The number of repetitions that make a turn, and the time of the very first one, compilation included."""
    first = _timed(repeat, 1)
    _timed(repeat, 1)  # memory is still being allocated
    return max(1, round(turn / _timed(repeat, 1))), first


def _timed(repeat, steps):
    started = time.perf_counter()
    repeat(steps)
    return time.perf_counter() - started


def _in_a_line(error):
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


if __name__ == "__main__":
    main()
