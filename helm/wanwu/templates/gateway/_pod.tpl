{{/* The gateway's pod, the same in its Deployment and its StatefulSet. */}}
{{- define "wanwu.gateway.pod" -}}
{{- $g := .Values.gateway -}}
metadata:
  labels:
    {{- include "wanwu.podLabels" (list . "gateway" $g.podLabels) | nindent 4 }}
  annotations:
    kubectl.kubernetes.io/default-container: gateway
    {{- with $g.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "wanwu.fullname" . }}-gateway
  {{- include "wanwu.podSecurity" . | nindent 2 }}
  terminationGracePeriodSeconds: {{ add $g.preStopSeconds $g.drainSeconds 5 }}
  containers:
    - name: gateway
      image: {{ include "wanwu.gatewayImage" . }}
      imagePullPolicy: {{ $g.image.pullPolicy }}
      command: [wanwu, gateway]
      env:
        {{- include "wanwu.gateway.env" . | nindent 8 }}
      {{- include "wanwu.containerSecurity" . | nindent 6 }}
      ports:
        - {name: http, containerPort: 8000}
        - {name: metrics, containerPort: 9090}
      # Triton may be long in starting, so readiness alone asks for it.
      startupProbe:
        httpGet: {path: /healthz, port: http}
        periodSeconds: 2
        failureThreshold: 60
      readinessProbe:
        httpGet: {path: /readyz, port: http}
        periodSeconds: 5
        timeoutSeconds: 5
      livenessProbe:
        httpGet: {path: /healthz, port: http}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      lifecycle:
        preStop:
          # It serves on until every proxy knows that the pod has left the Service.
          exec: {command: [sleep, {{ int $g.preStopSeconds | quote }}]}
      resources:
        {{- toYaml $g.resources | nindent 8 }}
      volumeMounts:
        {{- include "wanwu.clientMounts" . | nindent 8 }}
        {{- if $g.auth.keysSecret }}
        - {name: keys, mountPath: /keys, readOnly: true}
        {{- end }}
        {{- if include "wanwu.gateway.jwks" . }}
        - {name: jwks, mountPath: /jwks, readOnly: true}
        {{- end }}
        {{- if eq $g.audit.mode "pvc" }}
        - {name: audit, mountPath: /audit}
        {{- end }}
        {{- if $g.audit.keySecret }}
        - {name: audit-key, mountPath: /audit-key, readOnly: true}
        {{- end }}
        {{- if $g.audit.headClaim }}
        # Each pod writes a head of its own.
        - {name: audit-head, mountPath: /audit-head, subPathExpr: $(POD_NAME)}
        {{- end }}
        {{- with $g.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    {{- include "wanwu.clientVolumes" . | nindent 4 }}
    {{- with $g.auth.keysSecret }}
    # As a folder: the kubelet renews it, and the gateway sees a changed file within a second.
    - name: keys
      secret: {secretName: {{ quote . }}, defaultMode: 0440}
    {{- end }}
    {{- with include "wanwu.gateway.jwks" . }}
    - name: jwks
      projected:
        defaultMode: 0440
        sources: {{- . | nindent 10 }}
    {{- end }}
    {{- with $g.audit.keySecret }}
    - name: audit-key
      secret: {secretName: {{ quote . }}, defaultMode: 0440}
    {{- end }}
    {{- with $g.audit.headClaim }}
    - name: audit-head
      persistentVolumeClaim: {claimName: {{ quote . }}}
    {{- end }}
    {{- with $g.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- include "wanwu.spread" (list . "gateway") | nindent 2 }}
  {{- with include "wanwu.scheduling" $g }}
  {{- trim . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "wanwu.gateway.env" -}}
{{- $g := .Values.gateway -}}
{{ include "wanwu.clientEnv" . }}
- {name: WANWU_GATEWAY_HOST, value: {{ ternary "::" "0.0.0.0" (ne (include "wanwu.ipv6" .) "") | quote }}}
- {name: WANWU_GATEWAY_PORT, value: "8000"}
- {name: WANWU_GATEWAY_METRICS_PORT, value: "9090"}
- {name: WANWU_GATEWAY_DRAIN_S, value: {{ int $g.drainSeconds | quote }}}
- {name: WANWU_GATEWAY_AUDIT, value: {{ ternary "/audit/audit.jsonl" "-" (eq $g.audit.mode "pvc") | quote }}}
{{- if $g.audit.keySecret }}
- {name: WANWU_GATEWAY_AUDIT_KEY, value: /audit-key/key.pem}
{{- end }}
{{- if $g.audit.headClaim }}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- {name: WANWU_GATEWAY_AUDIT_HEAD, value: /audit-head/audit.jsonl.head}
{{- end }}
{{- if not $g.auth.enabled }}
- {name: WANWU_GATEWAY_AUTH, value: "off"}
{{- end }}
{{- if $g.auth.keysSecret }}
- {name: WANWU_GATEWAY_KEYS_FILE, value: /keys/keys.json}
{{- end }}
{{- $issuers := list }}
{{- range $number, $issuer := $g.auth.issuers }}
{{- $file := ternary (dict "jwks" (printf "/jwks/%d/jwks.json" $number)) dict (hasKey $issuer "jwksSecret") }}
{{- $issuers = append $issuers (merge $file (omit $issuer "jwksSecret")) }}
{{- end }}
{{- with $issuers }}
- {name: WANWU_GATEWAY_ISSUERS, value: {{ toJson . | quote }}}
{{- end }}
{{- with $g.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- range $name, $value := $g.settings }}
{{- /* toJson writes 10000000, where Go's own writing is 1e+07. */}}
- {name: {{ $name }}, value: {{ kindIs "string" $value | ternary $value (toJson $value) | quote }}}
{{- end }}
{{- end -}}

{{/* The key sets that lie in Secrets, each in a folder of its issuer's number. */}}
{{- define "wanwu.gateway.jwks" -}}
{{- range $number, $issuer := .Values.gateway.auth.issuers }}
{{- with $issuer.jwksSecret }}
- secret: {name: {{ quote . }}, items: [{key: jwks.json, path: {{ printf "%d/jwks.json" $number }}}]}
{{- end }}
{{- end }}
{{- end -}}
