"""The embedded default: the Triton that PyPI ships, over the same model repository as a cluster."""

#: How many threads onnxruntime gets in each model instance; `wanwu serve` shares out the cores.
THREADS_VARIABLE = "WANWU_THREADS_PER_INSTANCE"
#: The most device memory, in MiB, that onnxruntime's arena takes in each model instance.
GPU_MEMORY_VARIABLE = "WANWU_GPU_MEMORY_MB"
