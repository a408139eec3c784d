{{/* Parts of the network policies. */}}

{{/* What every pod of the release carries. */}}
{{- define "wanwu.releaseLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "wanwu.namespaces" -}}
{{- range . }}
- namespaceSelector:
    matchLabels:
      {{- toYaml . | nindent 6 }}
{{- end }}
{{- end -}}

{{/* Prometheus: (list namespaces port). Without a namespace the rule would let everybody in. */}}
{{- define "wanwu.scrape" -}}
{{- with first . }}
- ports: [{port: {{ last $ }}, protocol: TCP}]
  from:
    {{- include "wanwu.namespaces" . | trim | nindent 4 }}
{{- end }}
{{- end -}}

{{- define "wanwu.dns" -}}
- ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
  to:
    - namespaceSelector:
        matchLabels:
          {{- toYaml . | nindent 10 }}
{{- end -}}
