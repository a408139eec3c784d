"""Export a dual-tower model: ONNX towers, label banks and a filled Triton model repository."""

import os

# The bound on onnxruntime's version keeps its telemetry out; this is for who overrides it. It is
# read once, when onnxruntime loads.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
