{{/* Names and labels. Other templates pass (list . "component"). */}}

{{- define "wanwu.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $whole := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- /* 40 leaves room for the longest ending under the 63 of a Service, whose name has no dot. */ -}}
{{- default $whole .Values.fullnameOverride | replace "." "-" | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "wanwu.selectorLabels" -}}
{{ include "wanwu.releaseLabels" (first .) }}
app.kubernetes.io/component: {{ last . }}
{{- end -}}

{{- define "wanwu.labels" -}}
{{- $root := first . -}}
{{ include "wanwu.selectorLabels" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* An image's address: (list . image defaultTag). A digest wins over the tag. */}}
{{- define "wanwu.image" -}}
{{- $root := index . 0 -}}{{- $image := index . 1 -}}
{{- printf "%s/%s" (trimSuffix "/" $root.Values.imageRegistry) $image.repository -}}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ default (index . 2) $image.tag }}{{ end -}}
{{- end -}}

{{- define "wanwu.tritonImage" -}}
{{- include "wanwu.image" (list . .Values.triton.image (printf "%s-py3" .Values.triton.image.release)) -}}
{{- end -}}

{{- define "wanwu.gatewayImage" -}}
{{- include "wanwu.image" (list . .Values.gateway.image .Chart.AppVersion) -}}
{{- end -}}

{{/* "true" where a release is another or later: (list "26.08" "26.01"). Else empty. */}}
{{- define "wanwu.isSince" -}}
{{- if ge (first . | replace "." "" | atoi) (last . | replace "." "" | atoi) }}true{{ end -}}
{{- end -}}

{{/* "true" where Triton has a latency histogram of ordinary models. Else empty. */}}
{{- define "wanwu.histograms" -}}
{{- include "wanwu.isSince" (list .Values.triton.image.release "26.01") -}}
{{- end -}}

{{/* The first release without a known fault, by files/triton-releases.json, whose last is the newest. */}}
{{- define "wanwu.triton.sound" -}}
{{- last (.Files.Get "files/triton-releases.json" | fromJson).faults | dig "fixed_in" "" -}}
{{- end -}}

{{/* Faults that a cluster's Triton of this release has, by the same. */}}
{{- define "wanwu.triton.faults" -}}
{{- $ids := list -}}
{{- range (.Files.Get "files/triton-releases.json" | fromJson).faults -}}
{{- if and (has "cluster" .where) (not (include "wanwu.isSince" (list $.Values.triton.image.release .fixed_in))) -}}
{{- $ids = concat $ids .ids -}}
{{- end -}}
{{- end -}}
{{- join ", " $ids -}}
{{- end -}}

{{/* Every pod: no user root, no identity in the cluster, only the system calls of the runtime. */}}
{{- define "wanwu.podSecurity" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  {{- with int .Values.podUserId }}
  runAsUser: {{ . }}
  runAsGroup: {{ . }}
  fsGroup: {{ . }}
  {{- end }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Every container. */}}
{{- define "wanwu.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{/* Name of the Secret with the keys of Triton. */}}
{{- define "wanwu.keysSecret" -}}
{{- default (printf "%s-keys" (include "wanwu.fullname" .)) .Values.triton.security.existingSecret -}}
{{- end -}}

{{/* Names of the Secrets with Triton's certificate, and with the one that its callers here show. */}}
{{- define "wanwu.tlsSecret" -}}
{{- default (printf "%s-triton-tls" (include "wanwu.fullname" .)) .Values.triton.tls.existingSecret -}}
{{- end -}}
{{- define "wanwu.clientTlsSecret" -}}
{{- default (printf "%s-client-tls" (include "wanwu.fullname" .)) .Values.triton.tls.clientSecret -}}
{{- end -}}

{{/* A quantity of Kubernetes as a plain number: "500m" is 0.5 and "1Ki" is 1024. */}}
{{- define "wanwu.quantity" -}}
{{- if kindIs "string" . -}}
{{- $units := dict "" 1.0 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 "Pi" 1125899906842624.0 "Ei" 1152921504606846976.0 -}}
{{- $unit := regexFind "[A-Za-z]*$" . -}}
{{- mulf (trimSuffix $unit . | float64) (get $units $unit) -}}
{{- else }}{{ float64 . }}{{ end -}}
{{- end -}}

{{/* Whole cores of Triton's CPU limit, at least 1; 0 without a limit. */}}
{{- define "wanwu.cores" -}}
{{- with dig "limits" "cpu" "" .Values.triton.resources -}}
{{- max 1 (include "wanwu.quantity" . | float64 | floor | int) -}}
{{- else }}0{{ end -}}
{{- end -}}

{{/* Labels of a workload's pods, (list . "component" podLabels): those that select them win. */}}
{{- define "wanwu.podLabels" -}}
{{- merge (include "wanwu.selectorLabels" (list (index . 0) (index . 1)) | fromYaml) (index . 2) | toYaml -}}
{{- end -}}

{{/* Where and by what a workload's pods run: its values, triton or gateway. */}}
{{- define "wanwu.scheduling" -}}
{{- range $key := list "runtimeClassName" "priorityClassName" "schedulerName" "nodeSelector" "affinity" "tolerations" "resourceClaims" }}
{{- with get $ $key }}
{{ dict $key . | toYaml }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Addresses of the services, where the cluster's first family is not wanted. */}}
{{- define "wanwu.ipFamilies" -}}
{{- with .Values.ipFamilies }}
ipFamilyPolicy: {{ ternary "RequireDualStack" "SingleStack" (gt (len .) 1) }}
ipFamilies: {{ toJson . }}
{{- end }}
{{- end -}}

{{/* "true" where pods are reached by IPv6; and where that comes first, so that probes do. */}}
{{- define "wanwu.ipv6" -}}
{{- if has "IPv6" .Values.ipFamilies }}true{{ end -}}
{{- end -}}
{{- define "wanwu.ipv6First" -}}
{{- if and .Values.ipFamilies (eq (first .Values.ipFamilies) "IPv6") }}true{{ end -}}
{{- end -}}

{{/* Spread pods: (list . "component"). A pod that cannot be spread still starts. */}}
{{- define "wanwu.spread" -}}
topologySpreadConstraints:
  {{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - topologyKey: {{ $key }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "wanwu.selectorLabels" $ | nindent 8 }}
  {{- end }}
{{- end -}}

{{/* How pods of the namespace speak to Triton, as environment of `wanwu`. */}}
{{- define "wanwu.clientEnv" -}}
- {name: WANWU_URL, value: "dns:///{{ include "wanwu.fullname" . }}-triton.{{ .Release.Namespace }}.svc:8001"}
- {name: WANWU_TIMEOUT_S, value: {{ .Values.gateway.timeoutSeconds | quote }}}
- {name: WANWU_CACHE_DIR, value: /tmp/wanwu}
{{- if .Values.triton.security.inferenceKey }}
- {name: WANWU_API_KEY, valueFrom: {secretKeyRef: {name: {{ include "wanwu.keysSecret" . | quote }}, key: inference}}}
{{- end }}
{{- if .Values.triton.tls.enabled }}
- {name: WANWU_TLS_CA, value: /tls/server/ca.crt}
{{- if .Values.triton.tls.mutual }}
- {name: WANWU_TLS_CERT, value: /tls/client/tls.crt}
- {name: WANWU_TLS_KEY, value: /tls/client/tls.key}
{{- end }}
{{- end }}
{{- end -}}

{{- define "wanwu.clientMounts" -}}
- {name: tmp, mountPath: /tmp}
{{- if .Values.triton.tls.enabled }}
- {name: server-tls, mountPath: /tls/server, readOnly: true}
{{- if .Values.triton.tls.mutual }}
- {name: client-tls, mountPath: /tls/client, readOnly: true}
{{- end }}
{{- end }}
{{- end -}}

{{- define "wanwu.clientVolumes" -}}
- name: tmp
  emptyDir: {sizeLimit: 1Gi}
{{- if .Values.triton.tls.enabled }}
- name: server-tls
  secret:
    secretName: {{ include "wanwu.tlsSecret" . | quote }}
    # The authority alone: the server's key is the server's.
    items: [{key: ca.crt, path: ca.crt}]
{{- if .Values.triton.tls.mutual }}
- name: client-tls
  secret: {secretName: {{ include "wanwu.clientTlsSecret" . | quote }}, defaultMode: 0440}
{{- end }}
{{- end }}
{{- end -}}

{{/*
Pods of a workload that a scaler owns, (list . kind component bounds): the live number within the
scaler's bounds, or its least. A manifest without a number would set 1 as a scaler is turned on.
*/}}
{{- define "wanwu.liveReplicas" -}}
{{- $root := index . 0 -}}{{- $bounds := index . 3 -}}
{{- $name := printf "%s-%s" (include "wanwu.fullname" $root) (index . 2) -}}
{{- $live := lookup "apps/v1" (index . 1) $root.Release.Namespace $name | default dict -}}
{{- dig "spec" "replicas" 0 $live | int | min (int $bounds.maxReplicas) | max (int $bounds.minReplicas) -}}
{{- end -}}
