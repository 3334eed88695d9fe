"""What identifies a job: bundle, methods, what is explained, the pictures, all that a map's bytes depend on.

It is the content of job.json. The same description continues a job; another one is refused, with the difference.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from onnxplain.errors import OutputError, ParameterError, unknown
from onnxplain.jobs.limits import Limits

FORMAT = 1
FILE = "job.json"
DTYPES = ("float32", "float16")
KINDS = ("full", "sum", "magnitude")
FORMATS = ("npy", "parquet")
MOST_IN_SHARD = 10_000
"""A sheet of so many thumbnails is as large as a JPEG file may be."""


@dataclass(frozen=True, slots=True)
class Output:
    """What a job writes of each picture.

    `maps` is "full" (as the network takes pictures), "sum" or "magnitude" (over the channels, of a or |a|: [H, W]);
    `dtype` is float32, or float16 with a scale for each map; `format` is npy or parquet. `shard_size` pictures make a
    shard. `thumbnails` are for the report, `overlays` a PNG file for each map.
    """

    shard_size: int = 500
    dtype: str = "float32"
    maps: str = "full"
    format: str = "npy"
    thumbnails: bool = True
    overlays: bool = False

    def __post_init__(self) -> None:
        size = self.shard_size
        if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= MOST_IN_SHARD:
            raise ParameterError(f"shard_size={size!r} must be a whole number from 1 to {MOST_IN_SHARD}")
        for name, value, known in (
            ("dtype", self.dtype, DTYPES),
            ("kind of maps", self.maps, KINDS),
            ("format", self.format, FORMATS),
        ):
            if value not in known:
                raise ParameterError(unknown(name, str(value), known))


@dataclass(frozen=True, slots=True)
class Running:
    """How the runs are made up, fixed when a job begins, since a map's last bits depend on it.

    `lanes` runs go on at the same time, each on `threads` threads, of `rows` images times steps where `memory` (bytes
    for each lane) allows, by onnxruntime's `provider`; `batch` pictures are explained together.
    """

    lanes: int
    threads: int
    rows: int
    memory: int
    batch: int
    provider: str


@dataclass(frozen=True, slots=True)
class Description:
    """All of it."""

    bundle: Mapping[str, Any]
    methods: Mapping[str, Mapping[str, Any]]
    targets: str | int
    source: Mapping[str, Any]
    output: Output
    limits: Limits
    running: Running
    versions: Mapping[str, str]
    format: int = field(default=FORMAT)

    def plain(self) -> dict[str, Any]:
        """As job.json holds it."""
        return {"fingerprint": self.fingerprint, **self._content()}

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of everything in it."""
        return hashlib.sha256(json.dumps(self._content(), sort_keys=True).encode()).hexdigest()

    def _content(self) -> dict[str, Any]:
        # Through JSON, so that it is equal to what was read from a file.
        return json.loads(json.dumps(asdict(self)))


def read_description(folder: Path) -> Description | None:
    """A folder's job.json; None where there is none, OutputError for a damaged one or that of a newer version."""
    path = folder / FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise OutputError(f"{path} can't be read: {error}") from error
    try:
        if data["format"] > FORMAT:
            raise OutputError(f"{path} was written by a newer version; pip install --upgrade onnxplain")
        parts = {name: value for name, value in data.items() if name != "fingerprint"}
        made = Description(
            **{
                **parts,
                "output": Output(**parts["output"]),
                "limits": Limits(**parts["limits"]),
                "running": Running(**parts["running"]),
            }
        )
    except (KeyError, TypeError, ParameterError) as error:
        raise OutputError(f"{path} is damaged: {error}") from error
    if made.fingerprint != data.get("fingerprint"):
        raise OutputError(f"{path} was altered: its fingerprint is another; take the file back, or another folder")
    return made


def differences(there: Description, wanted: Description) -> list[str]:
    """What two descriptions disagree on, a line each."""
    return list(_differences("", there.plain() | {"fingerprint": ""}, wanted.plain() | {"fingerprint": ""}))


def _differences(name: str, there: Any, wanted: Any) -> Iterator[str]:
    if isinstance(there, dict) and isinstance(wanted, dict):
        for key in sorted({*there, *wanted}):
            yield from _differences(f"{name}.{key}" if name else key, there.get(key), wanted.get(key))
    elif there != wanted:
        yield f"{name}: {_short(there)} there, {_short(wanted)} now"


def _short(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}…"
