"""Entry point of the embedded profile; export copies it beside each version's model.onnx."""

from wanwu.embedded.backend import model_beside

TritonPythonModel = model_beside(__file__)
