"""Finished jobs whose results are made up, and their pages."""

import json

import numpy as np

from onnxplain.jobs import report, shards, storage
from onnxplain.jobs.description import FILE, Description, Output, Running
from onnxplain.jobs.limits import Limits
from onnxplain.jobs.shards import Entry
from onnxplain.jobs.statistics import NAMES
from onnxplain.jobs.summary import summarized
from onnxplain.jobs.thumbnails import SIDE, sheet
from onnxplain.targets import name_of

METHODS = ("gradient", "smoothgrad.captum")
HOSTILE = "<img src=x onerror=alert(1)></script><script>alert(2)</script>\"'&\u2028\u202e\x07\udcff$title"
LABELS = ["tabby cat", "Egyptian cat", "crane", "moped", "crane", HOSTILE, "an espresso in a cup", "pole"]


def write_job(folder, count, methods=METHODS, size=500, labels=LABELS, known=True, thumbnails=True, **other):
    """A finished job with `count` pictures; every 50th failed, every 10th class isn't known, every 25th map is zero."""
    made = Description(
        bundle={"name": other.get("bundle", "a network"), "sha256": "ab" * 32},
        methods={name: {"parameters": {"steps": 32}, "explains": "logits"} for name in methods},
        targets=other.get("targets", "top"),
        source={"kind": "files", "pictures": count, "sha256": "cd" * 32},
        output=Output(shard_size=size, thumbnails=thumbnails),
        limits=Limits(),
        running=Running(1, 1, 1, 1, 1, "CPUExecutionProvider"),
        versions={"onnxplain": "0", "onnxruntime": "0"},
    )
    folder.mkdir()
    storage.write_json(folder / FILE, made.plain())
    random = np.random.default_rng(7)
    sheets = {}
    for number in range(-(-count // size)):
        here = range(number * size, min(count, (number + 1) * size))
        entries = [_entry(random, at, at - number * size, methods, labels, known) for at in here]
        if len(here) not in sheets:
            sheets[len(here)] = [_sheet(len(here), at) for at in range(1 + len(methods))]
        names = ["thumbnails.jpg", *(f"thumbnails.{method}.jpg" for method in methods)]
        files = dict(zip(names, sheets[len(here)], strict=True)) if thumbnails else {}
        if other.get("overlays"):
            files |= {f"overlays/{at:08d}.{methods[0]}.png": b"png" for at in here if at % 2}
        files[shards.INDEX] = shards.jsonl([entry.line for entry in entries if not entry.failed])
        files[shards.FAILURES] = shards.jsonl([entry.line for entry in entries if entry.failed])
        path = shards.shard_folder(folder, number)
        (path / shards.OVERLAYS).mkdir(parents=True)
        for name, data in files.items():
            (path / name).write_bytes(data)
        maps = {name: {"file": f"{name}.npy", "shape": [3, 8, 8], "dtype": "float32"} for name in methods}
        if other.get("parquet"):
            maps = {name: {"shape": [3, 8, 8], "dtype": "float32"} for name in methods}
            files["maps.parquet"] = b"parquet"
        storage.write_json(path / shards.MANIFEST, shards.manifest(number, here.start, entries, maps, files, {}))
    return folder


def _entry(random, number, row, methods, labels, known):
    name = f"/data/{'ab'[number % 2]}/{number:05d}.jpg" if number != 3 else f"/data/a/{HOSTILE}"
    if number % 50 == 7:
        line = {"number": number, "name": name, "error": f"{name}: is no picture <b>", "where": "decoding"}
        return Entry(line, failed=True)
    predicted, true = (int(each) for each in random.integers(0, len(LABELS), 2))
    true = None if not known or number % 10 == 9 else predicted if number % 3 else true
    share = 1 - float(random.beta(1, 6))
    line = {
        "number": number,
        "row": row,
        "name": name,
        "sha256": "0" * 64,
        "box": None,
        "target": predicted,
        "target_label": name_of(predicted, labels),
        "predicted": predicted,
        "predicted_label": name_of(predicted, labels),
        "probability": share,
        "target_probability": share,
        "target_score": 20 * share,
        "label": true,
        "true_label": None if true is None else name_of(true, labels),
        "right": None if true is None else true == predicted,
    }
    for method in methods:
        size = float(random.gamma(4, 8))
        values = [0.01 * size, size, 0.5, float(random.random()), [0.5, 0.25], [0.1, 0.9]]
        if number % 25 == 2:
            values = [0.0, 0.0, *[None] * 4]
        line |= {f"{method}.{key}": value for key, value in zip(NAMES, values, strict=True)}
        line[f"{method}.sha256"] = "0" * 64
    return Entry(line)


def _sheet(count, kind):
    """Thumbnails whose colours differ from place to place."""
    shades = np.arange(count, dtype=np.uint64)[:, None] * np.array([37, 59, 83], np.uint64) + np.uint64(90 * kind)
    return sheet(np.broadcast_to((shades % 256).astype(np.uint8)[:, None, None, :], (count, SIDE, SIDE, 3)))


def write(folder):
    numbers = shards.finished(folder)
    methods = list(json.loads((folder / FILE).read_text(encoding="utf-8"))["methods"])
    report.write_report(folder, numbers, summarized(folder, numbers, {}, methods))
    return (folder / report.REPORT).read_text(encoding="utf-8")
