"""What went wrong inside another package, in one line."""


def root_cause(error: BaseException) -> str:
    """The first line of the innermost cause, without the account that exporters give of their own steps."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].endswith(":"):
        return f"{lines[0]} {lines[1]}"
    return lines[0] if lines else type(error).__name__
