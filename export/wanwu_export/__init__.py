"""Export a dual-tower model: ONNX towers, label banks and a filled Triton model repository."""
