{{/* The parts of Triton's pod: what lays its models out, what serves them, and its volumes. */}}

{{- define "wanwu.triton.layModels" -}}
{{- $t := .Values.triton -}}
- name: lay-models
  image: {{ include "wanwu.tritonImage" . }}
  imagePullPolicy: {{ $t.image.pullPolicy }}
  command: [sh, /configs/lay-models.sh]
  env:
    - {name: WANWU_REPOSITORY, value: {{ include "wanwu.repository.folder" . | quote }}}
    - {name: WANWU_CONFIGS, value: /configs}
    - {name: WANWU_MODELS, value: /models}
    - {name: WANWU_MANIFEST_SHA256, value: {{ .Values.model.manifestSha256 | quote }}}
    {{- if eq $t.profile "cpu" }}
    - {name: NVIDIA_VISIBLE_DEVICES, value: void}
    {{- end }}
  {{- include "wanwu.containerSecurity" . | nindent 2 }}
  resources:
    requests: {cpu: 100m, memory: 64Mi}
    limits: {memory: 256Mi}
  volumeMounts:
    - {{ include "wanwu.repository.mount" . }}
    - {name: configs, mountPath: /configs, readOnly: true}
    - {name: models, mountPath: /models}
{{- end -}}

{{- define "wanwu.triton.container" -}}
{{- $t := .Values.triton -}}
- name: triton
  image: {{ include "wanwu.tritonImage" . }}
  imagePullPolicy: {{ $t.image.pullPolicy }}
  {{- if include "wanwu.tensorrt" . }}
  command: [bash, /configs/with-engines.sh, tritonserver]
  {{- else }}
  command: [tritonserver]
  {{- end }}
  args:
    {{- include "wanwu.triton.args" . | nindent 4 }}
  env:
    {{- include "wanwu.triton.env" . | nindent 4 }}
  {{- include "wanwu.containerSecurity" . | nindent 2 }}
  ports:
    - {name: http, containerPort: 8000}
    - {name: grpc, containerPort: 8001}
    - {name: metrics, containerPort: 8002}
  startupProbe:
    httpGet: {path: /v2/health/ready, port: http}
    periodSeconds: 5
    timeoutSeconds: 5
    failureThreshold: {{ divf $t.startupSeconds 5 | ceil | int }}
  readinessProbe:
    httpGet: {path: /v2/health/ready, port: http}
    periodSeconds: 5
    timeoutSeconds: 5
  livenessProbe:
    httpGet: {path: /v2/health/live, port: http}
    periodSeconds: 10
    timeoutSeconds: 10
    failureThreshold: 6
  lifecycle:
    preStop:
      # The pod has left the Service; it serves on until callers have looked the name up again.
      exec: {command: [sleep, {{ int $t.preStopSeconds | quote }}]}
  resources:
    {{- include "wanwu.triton.resources" . | nindent 4 }}
  volumeMounts:
    - {{ include "wanwu.repository.mount" . }}
    - {name: models, mountPath: /models, readOnly: true}
    - {name: cache, mountPath: /cache}
    {{- if include "wanwu.tensorrt" . }}
    - {name: configs, mountPath: /configs, readOnly: true}
    {{- end }}
    {{- if $t.engineCache.claimName }}
    - {name: engines, mountPath: /engines}
    {{- end }}
    - {name: tmp, mountPath: /tmp}
    - {name: shm, mountPath: /dev/shm}
    {{- with $t.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- if $t.tls.enabled }}
    - {name: tls, mountPath: /tls, readOnly: true}
    {{- end }}
{{- end -}}

{{/* The values' resources, with the GPUs among the limits. */}}
{{- define "wanwu.triton.resources" -}}
{{- with .Values.triton -}}
{{- $gpu := ternary (dict .gpu.resourceName (int .gpu.count)) dict (and (eq .profile "gpu") (gt (int .gpu.count) 0)) -}}
{{- $limits := dict "limits" (merge $gpu (dig "limits" dict .resources)) -}}
{{- $claims := list -}}
{{- range .resourceClaims }}{{ $claims = append $claims (pick . "name") }}{{ end -}}
{{- merge $limits .resources (ternary (dict "claims" $claims) dict (gt (len $claims) 0)) | toYaml }}
{{- end }}
{{- end -}}

{{- define "wanwu.triton.volumes" -}}
{{- $t := .Values.triton -}}
- {{- include "wanwu.repository.volume" . | nindent 2 }}
- name: configs
  configMap: {name: {{ include "wanwu.fullname" . }}-triton}
- name: models
  emptyDir: {sizeLimit: 64Mi}
- name: cache
  emptyDir: {sizeLimit: {{ $t.cacheSize }}}
{{- with $t.engineCache.claimName }}
- name: engines
  persistentVolumeClaim: {claimName: {{ quote . }}}
{{- end }}
- name: tmp
  emptyDir: {sizeLimit: 2Gi}
- name: shm
  emptyDir: {medium: Memory, sizeLimit: {{ $t.shmSize }}}
{{- with $t.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- if $t.tls.enabled }}
- name: tls
  secret: {secretName: {{ include "wanwu.tlsSecret" . | quote }}, defaultMode: 0440}
{{- end }}
{{- end -}}

{{/* What the pod reads at its start; when it changes, new pods are started. */}}
{{- define "wanwu.triton.files" -}}
lay-models.sh: |
  {{- .Files.Get "files/lay-models.sh" | nindent 2 }}
{{- if include "wanwu.tensorrt" . }}
with-engines.sh: |
  {{- .Files.Get "files/with-engines.sh" | nindent 2 }}
{{- end }}
{{- range $tower := list "image_encoder" "text_encoder" }}
{{ $tower }}.pbtxt: |
  {{- include "wanwu.config.tower" (list $ $tower) | nindent 2 }}
{{- end }}
label_bank.pbtxt: |
  {{- include "wanwu.config.bank" . | nindent 2 }}
{{- end -}}
