{{/* The model repository's volume, what fills it, and the folder in it, by repository.source. */}}

{{- define "wanwu.repository.folder" -}}
/repository{{ if eq .Values.repository.source "image" }}{{ .Values.repository.image.path }}{{ end }}
{{- end -}}

{{- define "wanwu.repository.mount" -}}
{name: repository, mountPath: /repository, readOnly: true
{{- if eq .Values.repository.source "pvc" }}{{ with .Values.repository.pvc.subPath }}, subPath: {{ quote . }}{{ end }}{{ end }}}
{{- end -}}

{{- define "wanwu.repository.volume" -}}
name: repository
{{- with .Values.repository }}
{{- if eq .source "pvc" }}
persistentVolumeClaim: {claimName: {{ quote .pvc.claimName }}, readOnly: true}
{{- else if eq .source "image" }}
image: {reference: {{ include "wanwu.image" (list $ .image "latest") }}, pullPolicy: IfNotPresent}
{{- else }}
emptyDir: {}
{{- end }}
{{- end }}
{{- end -}}

{{/* The init container that copies the models into the pod; none for a volume that has them. */}}
{{- define "wanwu.repository.fetch" -}}
{{- with .Values.repository -}}
{{- if has .source (list "initImage" "s3") -}}
- name: fetch-models
{{- if eq .source "initImage" }}
  image: {{ include "wanwu.image" (list $ .image "latest") }}
  command: [cp, -R, {{ printf "%s/." .image.path | quote }}, /repository/]
{{- else }}
  image: {{ include "wanwu.image" (list $ .s3.image "latest") }}
  command: [aws, s3, cp, --recursive, --only-show-errors, {{ quote .s3.url }}, /repository]
  env:
    - {name: HOME, value: /tmp}
    - {name: AWS_ENDPOINT_URL, value: {{ .s3.endpoint | quote }}}
    - {name: AWS_DEFAULT_REGION, value: {{ .s3.region | quote }}}
    # Credentials come from the Secret alone.
    - {name: AWS_EC2_METADATA_DISABLED, value: "true"}
    {{- with $.Values.triton.extraEnv }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  envFrom:
    - secretRef: {name: {{ quote .s3.existingSecret }}}
{{- end }}
  {{- include "wanwu.containerSecurity" $ | nindent 2 }}
  resources:
    requests: {cpu: 100m, memory: 256Mi}
    limits: {memory: 1Gi}
  volumeMounts:
    - {name: repository, mountPath: /repository}
    - {name: tmp, mountPath: /tmp}
    {{- with $.Values.triton.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}
{{- end }}
{{- end -}}
