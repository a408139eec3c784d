{{/* Triton's command line. Kubernetes fills $(NAME) in from the environment. */}}
{{- define "wanwu.triton.args" -}}
{{- $admin := "model-repository,model-config,shared-memory,trace,logging" -}}
{{- $inference := "inference,health,metadata,statistics" -}}
{{- with .Values.triton -}}
- --model-repository=/models
- --model-config-name=chart
# Explicit control lets the holder of the admin key load and unload; all is loaded at start.
- --model-control-mode=explicit
- --load-model=*
- --exit-timeout-secs={{ int .exitTimeoutSeconds }}
- --http-port=8000
- --grpc-port=8001
- --metrics-port=8002
{{- if include "wanwu.ipv6" $ }}
# gRPC serves both families so; HTTP and metrics one, that of the pod's first address.
- "--grpc-address=[::]"
{{- end }}
{{- if include "wanwu.ipv6First" $ }}
- "--http-address=ipv6:::"
- "--metrics-address=ipv6:::"
{{- end }}
- --grpc-max-connection-age={{ int64 .grpc.maxConnectionAgeMs }}
- --grpc-max-connection-age-grace={{ int64 .grpc.maxConnectionAgeGraceMs }}
{{- if include "wanwu.isSince" (list .image.release "25.03") }}
# A request has one response; without a bound a caller who does not read could fill the memory.
- --grpc-max-response-pool-size=8
{{- end }}
- --grpc-restricted-protocol={{ $admin }}:wanwu-admin-key=$(WANWU_ADMIN_KEY)
{{- if .security.inferenceKey }}
- --grpc-restricted-protocol={{ $inference }}:wanwu-api-key=$(WANWU_API_KEY)
{{- end }}
# HTTP is for the kubelet's probes; it knows no TLS, so all but health wants the admin key.
- --http-restricted-api=inference,metadata,statistics,{{ $admin }}:wanwu-admin-key=$(WANWU_ADMIN_KEY)
{{- if include "wanwu.histograms" $ }}
- --metrics-config=histogram_latencies=true
{{- else }}
- --metrics-config=summary_latencies=true
- --metrics-config=summary_quantiles=0.5:0.05,0.95:0.001
{{- end }}
{{- if eq .profile "cpu" }}
- --allow-gpu-metrics=false
{{- end }}
{{- if .tls.enabled }}
- --grpc-use-ssl=true
- --grpc-server-cert=/tls/tls.crt
- --grpc-server-key=/tls/tls.key
{{- if .tls.mutual }}
- --grpc-use-ssl-mutual=true
- --grpc-root-cert=/tls/ca.crt
{{- end }}
{{- end }}
{{- with .extraArgs }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "wanwu.triton.env" -}}
- {name: HOME, value: /tmp}
{{- if and (include "wanwu.tensorrt" .) (include "wanwu.ipv6First" .) }}
- {name: WANWU_HTTP_HOST, value: "::1"}
{{- end }}
- {name: CUDA_CACHE_PATH, value: /cache/cuda}
{{- if include "wanwu.tensorrt" . }}
- {name: WANWU_ENGINES, value: {{ include "wanwu.engines" . | quote }}}
- name: WANWU_ENGINES_KEPT
  value: {{ ternary "/engines/" "/cache/kept/" (ne .Values.triton.engineCache.claimName "") }}{{ include "wanwu.engines" . | base }}
{{- end }}
# Nothing that runs here reports to its vendor.
- {name: ORT_DISABLE_TELEMETRY, value: "1"}
{{- if eq .Values.triton.profile "cpu" }}
# The image asks for all GPUs of the node, which a runtime may grant without a resource.
- {name: NVIDIA_VISIBLE_DEVICES, value: void}
{{- end }}
- name: WANWU_ADMIN_KEY
  valueFrom:
    secretKeyRef: {name: {{ include "wanwu.keysSecret" . | quote }}, key: admin}
{{- if .Values.triton.security.inferenceKey }}
- name: WANWU_API_KEY
  valueFrom:
    secretKeyRef: {name: {{ include "wanwu.keysSecret" . | quote }}, key: inference}
{{- end }}
{{- with .Values.triton.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}
