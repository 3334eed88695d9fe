"""The networks of the coverage table: a file for each source, whose table at the top names them, one a line.

These modules run inside their framework's own environment, so they may import that framework, numpy and onnx only, and
nothing at all to be listed.
"""
