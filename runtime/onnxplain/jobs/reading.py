"""Reading a job's maps back."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import OutputError
from onnxplain.jobs import shards
from onnxplain.jobs.description import read_description


def results(out: str | os.PathLike[str]) -> Iterator[tuple[dict[str, Any], dict[str, NDArray[np.float32]]]]:
    """For each explained picture of the finished shards, in order: its line of the index, and its maps by method.

    Maps are float32 in their true size, whatever type they were stored in. OutputError for a folder without a job, or
    with maps in Parquet, which pyarrow, pandas and DuckDB read by themselves.
    """
    folder = Path(out)
    there = read_description(folder)
    if there is None:
        raise OutputError(f"{folder} holds no job")
    if there.output.format != "npy":
        raise OutputError(f"the maps of {folder} are in Parquet: pandas.read_parquet reads them")
    for number in shards.finished(folder):
        shard = shards.shard_folder(folder, number)
        maps = {path.stem: np.load(path, mmap_mode="r") for path in shard.glob("*.npy") if path.stem in there.methods}
        for line in shards.lines(shard / shards.INDEX):
            row = line["row"]
            yield (
                line,
                {
                    name: np.array(maps[name][row], np.float32) * np.float32(line.get(f"{name}.scale", 1))
                    for name in there.methods
                },
            )
