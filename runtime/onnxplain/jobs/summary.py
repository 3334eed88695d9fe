"""What a finished job says of itself: summary.json, and failures.jsonl for all shards together."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnxplain.jobs import shards, storage

SUMMARY, FAILURES = "summary.json", "failures.jsonl"
NOTED = ("magnitude", "positive", "concentration")


@dataclass(slots=True)
class _Mean:
    """A mean and extremes, one number after another."""

    count: int = 0
    total: float = 0.0
    least: float | None = None
    most: float | None = None

    def add(self, value: float | None) -> None:
        if value is None:
            return
        self.count, self.total = self.count + 1, self.total + value
        self.least = value if self.least is None else min(self.least, value)
        self.most = value if self.most is None else max(self.most, value)

    def plain(self) -> dict[str, Any]:
        mean = self.total / self.count if self.count else None
        return {"mean": mean, "least": self.least, "most": self.most}


@dataclass(slots=True)
class _Class:
    predicted: int = 0
    labelled: int = 0
    right: int = 0


@dataclass(slots=True)
class _Tally:
    """What is counted over all pictures, in memory that grows with the classes alone."""

    methods: Sequence[str]
    explained: int = 0
    judged: int = 0
    right: int = 0
    probability: _Mean = field(default_factory=_Mean)
    classes: dict[str, _Class] = field(default_factory=dict)
    maps: dict[str, _Mean] = field(default_factory=dict)

    def add(self, line: Mapping[str, Any]) -> None:
        self.explained += 1
        self.probability.add(line["probability"])
        self.classes.setdefault(line["predicted_label"], _Class()).predicted += 1
        if line["right"] is not None:
            self.judged += 1
            self.right += line["right"]
            of_class = self.classes.setdefault(line["true_label"], _Class())
            of_class.labelled += 1
            of_class.right += line["right"]
        for method in self.methods:
            for name in NOTED:
                self.maps.setdefault(f"{method}.{name}", _Mean()).add(line.get(f"{method}.{name}"))


def summarized(job: Path, numbers: Iterable[int], about: Mapping[str, Any], methods: Sequence[str]) -> dict[str, Any]:
    """Goes through the finished shards, writes the list of all failures, and returns the summary."""
    tally, failed = _Tally(methods), 0
    temporary = job / f"{storage.TEMPORARY}{FAILURES}"
    with storage.Growing(temporary) as file:
        at = 0
        for number in numbers:
            folder = shards.shard_folder(job, number)
            for line in shards.lines(folder / shards.INDEX):
                tally.add(line)
            data = (folder / shards.FAILURES).read_bytes()
            file.write(data, at)
            at, failed = at + len(data), failed + data.count(b"\n")
        file.sync()
    storage.rename(temporary, job / FAILURES)
    return {
        **about,
        "pictures": tally.explained + failed,
        "explained": tally.explained,
        "failed": failed,
        "right": tally.right if tally.judged else None,
        "accuracy": tally.right / tally.judged if tally.judged else None,
        "probability": tally.probability.plain(),
        "maps": {name: mean.plain() for name, mean in tally.maps.items()},
        "classes": {
            name: {"predicted": each.predicted, "labelled": each.labelled, "right": each.right}
            for name, each in sorted(tally.classes.items())
        },
    }
