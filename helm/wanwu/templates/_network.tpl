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

{{- define "wanwu.cidrs" -}}
{{- range . }}
- ipBlock: {cidr: {{ quote . }}}
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

{{/* Names: (networkPolicy). Ports are those of the pods, not of their Service. */}}
{{- define "wanwu.dns" -}}
- ports:
    {{- range .dnsPorts }}
    - {port: {{ int . }}, protocol: UDP}
    - {port: {{ int . }}, protocol: TCP}
    {{- end }}
  to:
    {{- include "wanwu.namespaces" (list .dnsNamespace) | trim | nindent 4 }}
    {{- include "wanwu.cidrs" .dnsCidrs | trim | nindent 4 }}
{{- end -}}
