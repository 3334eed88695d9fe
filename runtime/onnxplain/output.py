"""Writing files so that an interrupted command leaves nothing half-made."""

import contextlib
import os
import uuid
from pathlib import Path

from onnxplain.errors import OutputError


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write `data` to `path` under a temporary name beside it, then rename; raises OutputError."""
    path = Path(path)
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"can't write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
