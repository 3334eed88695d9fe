"""The commands of `onnxplain`, one module each."""
