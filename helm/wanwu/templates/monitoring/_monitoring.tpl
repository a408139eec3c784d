{{/* "true" where monitoring is rendered: by auto where the cluster has the Prometheus operator's kinds. */}}
{{- define "wanwu.monitoring.on" -}}
{{- $enabled := toString .Values.monitoring.enabled -}}
{{- $served := and (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1/PodMonitor") (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1/PrometheusRule") -}}
{{- if or (eq $enabled "true") (and (eq $enabled "auto") $served) }}true{{ end -}}
{{- end -}}

{{/* What Prometheus calls a scrape of these pods: its operator names the job NAMESPACE/PODMONITOR. */}}
{{- define "wanwu.monitoring.job" -}}
{{- $root := index . 0 -}}
namespace="{{ $root.Release.Namespace }}",job="{{ $root.Release.Namespace }}/{{ include "wanwu.fullname" $root }}-{{ index . 1 }}"
{{- end }}

{{/* The image tower: every picture passes it once, while banks and texts are kept by the client. */}}
{{- define "wanwu.monitoring.imageTower" -}}
{{ include "wanwu.monitoring.job" (list . "triton") }},model="image_encoder"
{{- end }}

{{/* Name and labels of one object, by which Prometheus finds it. */}}
{{- define "wanwu.monitoring.metadata" -}}
{{- $root := index . 0 -}}
name: {{ include "wanwu.fullname" $root }}-{{ index . 1 }}
namespace: {{ $root.Release.Namespace }}
labels:
  {{- include "wanwu.labels" (list $root (index . 2)) | nindent 2 }}
  {{- with $root.Values.monitoring.labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* Series that the recording rules made of this release. */}}
{{- define "wanwu.monitoring.recorded" -}}
namespace="{{ .Release.Namespace }}",release="{{ .Release.Name }}"
{{- end }}

{{/* A rate over fewer than four scrapes has holes when one is lost. */}}
{{- define "wanwu.monitoring.window" -}}
{{- with .Values.monitoring -}}
{{ max (int .rateWindowSeconds) (mul 4 (int .scrapeIntervalSeconds)) }}s
{{- end }}
{{- end }}

{{/* P95 of each pod, milliseconds, from the newest metric that its Triton has. */}}
{{- define "wanwu.monitoring.podP95" -}}
{{- $tower := include "wanwu.monitoring.imageTower" . -}}
{{- if include "wanwu.histograms" . -}}
histogram_quantile(0.95, sum by (namespace, pod, le) (rate(nv_inference_first_response_histogram_ms_bucket{ {{- $tower }}}[{{ include "wanwu.monitoring.window" . }}])))
{{- else -}}
max by (namespace, pod) (nv_inference_request_summary_us{ {{- $tower }},quantile="0.95"} and on (namespace, pod, version) ({{ include "wanwu.monitoring.warm" . }})) / 1000
{{- end -}}
{{- end }}

{{/* Towers whose summaries no longer hold their warm-up: these look back for 60 s, and the first scrape
     comes after it. A counter that fell is that of a container that began again. */}}
{{- define "wanwu.monitoring.warm" -}}
{{- $count := printf "nv_inference_request_summary_us_count{%s}" (include "wanwu.monitoring.imageTower" .) -}}
{{- $seconds := add 60 (int .Values.monitoring.scrapeIntervalSeconds) -}}
{{ $count }} and {{ $count }} offset {{ $seconds }}s and resets({{ $count }}[{{ $seconds }}s]) == 0
{{- end }}

{{/* Requests that wait in each tower's queue of a pod, of its limit; nothing where no queue has one. */}}
{{- define "wanwu.monitoring.queueFill" -}}
{{- $fills := list -}}
{{- with .Values.triton.batching -}}
{{- range $tower, $limit := dict "image_encoder" .maxQueueSize "text_encoder" .text.maxQueueSize -}}
{{- if $limit -}}
{{- $of := printf `max_over_time(nv_inference_pending_request_count{%s,model="%s"}[%s])` (include "wanwu.monitoring.job" (list $ "triton")) $tower (include "wanwu.monitoring.window" $) -}}
{{- $fills = append $fills (printf "max by (namespace, pod, model) (%s) / %d" $of (int64 $limit)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- join "\nor " $fills -}}
{{- end }}

{{/* GPU utilisation of each pod, 0 to 1, from where autoscaling.gpuSource says. */}}
{{- define "wanwu.monitoring.gpu" -}}
{{- $window := include "wanwu.monitoring.window" . -}}
{{- $of := printf `exported_namespace="%s",exported_pod=~"%s-triton-.+"` .Release.Namespace (include "wanwu.fullname" .) -}}
{{- if eq .Values.autoscaling.gpuSource "triton" -}}
avg by (namespace, pod) (avg_over_time(nv_gpu_utilization{ {{- include "wanwu.monitoring.job" (list . "triton") }}}[{{ $window }}]))
{{- else -}}
{{- /* dcgm-exporter runs in pods of its own, so the workload's labels arrive as exported_*. */ -}}
avg by (namespace, pod) (label_replace(label_replace(
{{- if eq .Values.autoscaling.gpuSource "dcgm-mig" -}}
avg_over_time(DCGM_FI_PROF_GR_ENGINE_ACTIVE{ {{- $of }}}[{{ $window }}])
{{- else -}}
avg_over_time(DCGM_FI_DEV_GPU_UTIL{ {{- $of }}}[{{ $window }}]) / 100
{{- end -}}
, "namespace", "$1", "exported_namespace", "(.*)"), "pod", "$1", "exported_pod", "(.*)"))
{{- end }}
{{- end }}

{{/* Where people read what to do about an alarm: its heading in docs/runbook.md. */}}
{{- define "wanwu.monitoring.runbook" -}}
{{- $root := index . 0 -}}
{{ $root.Values.monitoring.runbookUrl | default "docs/runbook.md" }}#{{ index . 1 | lower }}
{{- end }}
