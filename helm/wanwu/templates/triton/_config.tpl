{{/* Triton's model configs, laid beside the static ones as configs/chart.pbtxt. */}}

{{/* Most pictures in an execution. */}}
{{- define "wanwu.batch.largest" -}}
{{- int .Values.triton.batching.maxBatchSize | default (ternary 64 4 (eq .Values.triton.profile "gpu")) -}}
{{- end -}}

{{/* A tower: (list . "image_encoder"). No dims: Triton reads them from model.onnx. */}}
{{- define "wanwu.config.tower" -}}
{{- $root := first . -}}{{- $image := eq (last .) "image_encoder" -}}
{{- with $root.Values.triton -}}
{{- $gpu := eq .profile "gpu" -}}
{{- $cores := include "wanwu.cores" $root | int -}}
{{- $instances := .instances.text | int -}}
{{- if $image }}{{ $instances = .instances.image | int | default (ternary 2 (max 2 $cores) $gpu) }}{{ end -}}
{{- /* Texts are rare beside pictures: they may take half of the cores. */ -}}
{{- $threads := max 1 (div (ternary $cores (div $cores 2) $image) (max 1 $instances)) -}}
{{- /* The client sends texts by 64. */ -}}
{{- $batch := ternary (include "wanwu.batch.largest" $root | int) 64 $image -}}
{{- $queue := ternary .batching.maxQueueSize .batching.text.maxQueueSize $image -}}
backend: "onnxruntime"
max_batch_size: {{ $batch }}
dynamic_batching {
{{- with .batching.preferredBatchSizes | default (ternary list (list 4) $gpu) }}
{{- if $image }}
  preferred_batch_size: [ {{ range $i, $size := . }}{{ if $i }}, {{ end }}{{ int $size }}{{ end }} ]
{{- end }}
{{- end }}
  max_queue_delay_microseconds: {{ int64 .batching.queueDelayUs }}
  # A full queue answers at once instead of letting every caller wait.
  default_queue_policy {
    max_queue_size: {{ int64 $queue }}
    timeout_action: REJECT
    default_timeout_microseconds: {{ int64 .batching.queueTimeoutUs }}
  }
}
# With a limit on its queue Triton leaves a single instance idle for half a second when requests meet.
instance_group [ { kind: {{ ternary "KIND_GPU" "KIND_CPU" $gpu }} count: {{ $instances }} } ]
{{- if $cores }}
# Without a number onnxruntime starts a thread for each core of the host, not of the limit.
parameters { key: "intra_op_thread_count" value: { string_value: "{{ $threads }}" } }
parameters { key: "inter_op_thread_count" value: { string_value: "1" } }
{{- end }}
{{- if $gpu }}
{{- include "wanwu.config.cuda" $root }}
{{- if and $image .tensorrt.enabled }}
{{- include "wanwu.config.tensorrt" (list $root $batch) }}
{{- end }}
{{- end }}
{{- if .warmup }}
{{- include "wanwu.config.warmup" (list $root $image $batch) }}
{{- end }}
{{- if include "wanwu.histograms" $root }}
model_metrics {
  metric_control: [ {
    metric_identifier { family: "nv_inference_first_response_histogram_ms" }
    histogram_options { buckets: [ {{ range $i, $edge := .latencyBucketsMs }}{{ if $i }}, {{ end }}{{ int64 $edge }}{{ end }} ] }
  } ]
}
{{- end }}
{{- end }}
{{- end -}}

{{/* CUDA. The same keys of an accelerator named cuda would be overwritten by the defaults of these
     parameters: onnxruntime.cc reads them last. */}}
{{- define "wanwu.config.cuda" }}
# By default each new shape, such as a batch of another size, is searched for its fastest
# convolutions; 1 is HEURISTIC.
parameters { key: "cudnn_conv_algo_search" value: { string_value: "1" } }
# By default the arena doubles when it grows, and never shrinks; 1 is kSameAsRequested.
parameters { key: "arena_extend_strategy" value: { string_value: "1" } }
{{- with .Values.triton.gpu.memLimitBytes }}
parameters { key: "gpu_mem_limit" value: { string_value: "{{ int64 . }}" } }
{{- end }}
{{- end -}}

{{/* TensorRT, which leaves to CUDA what it cannot run: (list . largestBatch). It computes in the
     precision of the file: its FP16 flag is gone since 11, and would in 10 override the FP32 LayerNorm
     that the export has checked. PIXELS is the only input of the graph and feeds one Cast, so its
     shapes are those of every engine's input. */}}
{{- define "wanwu.config.tensorrt" -}}
{{- $root := first . -}}{{- $size := $root.Values.model.image -}}{{- $batch := last . -}}
{{- with $root.Values.triton }}
optimization {
  execution_accelerators {
    gpu_execution_accelerator: [ {
      name: "tensorrt"
      parameters { key: "trt_builder_optimization_level" value: "{{ int .tensorrt.optimizationLevel }}" }
      # Building an engine takes minutes; the cache makes the next start take seconds.
      parameters { key: "trt_engine_cache_enable" value: "true" }
      parameters { key: "trt_engine_cache_path" value: {{ include "wanwu.engines" $root | quote }} }
      parameters { key: "trt_timing_cache_enable" value: "true" }
{{- if $size.height }}
{{- $shape := printf "%dx%dx3" (int $size.height) (int $size.width) }}
      # One engine for every batch: without shapes it is built anew for each larger one.
      parameters { key: "trt_profile_min_shapes" value: "PIXELS:1x{{ $shape }}" }
      parameters { key: "trt_profile_opt_shapes" value: "PIXELS:{{ last .batching.preferredBatchSizes | default $batch | int }}x{{ $shape }}" }
      parameters { key: "trt_profile_max_shapes" value: "PIXELS:{{ $batch }}x{{ $shape }}" }
{{- end }}
    } ]
  }
}
{{- end }}
{{- end -}}

{{/* "true" where TensorRT runs the image tower. Else empty. */}}
{{- define "wanwu.tensorrt" -}}
{{- with .Values.triton -}}
{{- if and (eq .profile "gpu") .tensorrt.enabled }}true{{ end -}}
{{- end -}}
{{- end -}}

{{/* Where TensorRT's engines of this model, release and setting are: others are not for it. */}}
{{- define "wanwu.engines" -}}
{{- $of := list .Values.model.fingerprint .Values.triton.image.release .Values.triton.tensorrt (include "wanwu.batch.largest" . | int) -}}
/cache/tensorrt-{{ toJson $of | sha256sum | trunc 12 }}
{{- end -}}

{{/* Requests that Triton answers itself before it is ready: (list . isImage largestBatch). */}}
{{- define "wanwu.config.warmup" -}}
{{- $model := (index . 0).Values.model -}}
{{- $input := printf `key: "INPUT_IDS" value: { data_type: TYPE_INT64 dims: [ %d ] zero_data: true }` (int $model.text.maxLength) -}}
{{- if index . 1 -}}
{{- $input = printf `key: "PIXELS" value: { data_type: TYPE_UINT8 dims: [ %d, %d, 3 ] zero_data: true }` (int $model.image.height) (int $model.image.width) -}}
{{- end -}}
{{- if ternary $model.image.height $model.text.maxLength (index . 1) }}
model_warmup [
  { name: "one" batch_size: 1 inputs { {{ $input }} } },
  { name: "largest" batch_size: {{ index . 2 }} inputs { {{ $input }} } }
]
{{- end }}
{{- end -}}

{{/* A label bank, whatever its name. */}}
{{- define "wanwu.config.bank" -}}
# A bank is made of constants: one instance on the CPU, and no batching.
backend: "onnxruntime"
max_batch_size: 0
instance_group [ { kind: KIND_CPU count: 1 } ]
# Without a number onnxruntime starts a thread for each core of the host, not of the limit.
parameters { key: "intra_op_thread_count" value: { string_value: "1" } }
parameters { key: "inter_op_thread_count" value: { string_value: "1" } }
{{- end -}}
