"""The embedded default: the Triton that PyPI ships, over the same model repository as a cluster."""

#: How many threads onnxruntime gets in each model instance; `wanwu serve` shares out the cores.
THREADS_VARIABLE = "WANWU_THREADS_PER_INSTANCE"
