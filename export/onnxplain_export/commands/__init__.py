"""The commands that exporting adds to `onnxplain`."""

from typing import Any

from onnxplain_export.commands import check_command, detector_command, export_command, refresh_command, track_command


def add_commands(commands: Any) -> None:
    """Adds their parsers."""
    for command in (export_command, check_command, refresh_command, detector_command, track_command):
        command.add_command(commands)
