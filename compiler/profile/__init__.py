"""``deployc profile``: latency, throughput and memory of a variant per batch size.

Everything here runs on a serving machine, too: neither torch nor onnx is imported.
"""
