{{/* How fast pods may come and go, by the values of a scaler. */}}
{{- define "wanwu.scaling.behavior" -}}
{{- with . -}}
# Latency does not fall in step with pods, and shows a minute late what a new pod did: a cap on less
# than a minute would be reached several times before it is seen.
scaleUp:
  stabilizationWindowSeconds: 0
  selectPolicy: Max
  policies:
    - {type: Percent, value: {{ int .scaleUpPercent }}, periodSeconds: 60}
    - {type: Pods, value: {{ int .scaleUpPods }}, periodSeconds: 60}
scaleDown:
  stabilizationWindowSeconds: {{ int .scaleDownStabilizationSeconds }}
  selectPolicy: Max
  policies:
    - {type: Percent, value: {{ int .scaleDownPercent }}, periodSeconds: 60}
{{- end }}
{{- end -}}

{{/* "true" where the GPU's utilization is a signal. */}}
{{- define "wanwu.scaling.gpu" -}}
{{- if and (eq .Values.triton.profile "gpu") (gt (float64 .Values.autoscaling.gpuUtilization) 0.0) }}true{{ end -}}
{{- end -}}

{{/* The P95 to hold, ms. By default above what the profile's own model takes: docs/decisions/0020. */}}
{{- define "wanwu.scaling.p95Ms" -}}
{{- .Values.autoscaling.p95Ms | default (ternary 150 300 (eq .Values.triton.profile "gpu")) | toJson -}}
{{- end -}}

{{/* Mean time in the queue, ms, that is a sign of load: more than the batcher's own delay. Below it more
     pods would not make anything faster. */}}
{{- define "wanwu.scaling.loadMs" -}}
{{- addf (divf .Values.triton.batching.queueDelayUs 1000) (divf .Values.autoscaling.queueMs 4) | toJson -}}
{{- end -}}

{{/* Address of Prometheus for a trigger of KEDA, and how KEDA shows who it is. */}}
{{- define "wanwu.scaling.prometheus" -}}
serverAddress: {{ .prometheusUrl | quote }}
{{- with .prometheusAuthModes }}
authModes: {{ quote . }}
{{- end }}
{{- end -}}

{{/* For KEDA: 0 for NaN, and nothing where the series is missing, so that an outage is seen. */}}
{{- define "wanwu.scaling.query" -}}
{{- $series := printf "%s{%s}" (last .) (include "wanwu.monitoring.recorded" (first .)) -}}
(max({{ $series }}) >= 0) or 0 * count({{ $series }})
{{- end -}}
