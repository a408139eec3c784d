#!/bin/sh
# Installs Wanwu into the cluster that kubectl speaks to, from an unpacked bundle or from a checkout.
# Nothing is changed before everything that is needed is there; what is missing is told at once.
#
#   sh k8s/airgap/install.sh check   -f mine.yaml      # is everything there?
#   sh k8s/airgap/install.sh install -f mine.yaml      # check, bring the models in, install, test
#
# What follows the verb is given to helm: -f, --set, --timeout.
# mine.yaml is your values file: imageRegistry, gateway.auth.keysSecret, and what else you set. Where
# it names no models (repository.*), those of model_repository are brought into a claim, each version
# into a folder of its own, so that a rollback finds its models.
# Environment: NAMESPACE (wanwu), RELEASE (wanwu), STORAGE_CLASS (the cluster's default),
# MODELS_SIZE (20Gi), WANWU_MODEL_REPOSITORY (model_repository), KUBECONFIG.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
namespace=${NAMESPACE:-wanwu} release=${RELEASE:-wanwu} size=${MODELS_SIZE:-20Gi}
chart=$root/helm/wanwu models=${WANWU_MODEL_REPOSITORY:-$root/model_repository}
claim=$release-models
missing=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# dash runs the trap of EXIT at an exit alone.
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

say() { printf '%s\n' "$*"; }
lack() { missing=1; printf 'missing: %s\n' "$*" >&2; }
usage() { sed -n '/^# /s/^# //p; /^#$/p; /^set/q' "$0" >&2; exit 2; }
# kubectl in the release's namespace.
k() { kubectl -n "$namespace" "$@"; }

[ $# -ge 1 ] || usage
action=$1; shift
case $action in check | install) ;; *) usage ;; esac

# Arguments of helm that would mean another place to helm than to kubectl, or be read but once.
check_arguments() {
  [ -z "${HELM_KUBECONTEXT:-}${HELM_NAMESPACE:-}" ] ||
    lack "an environment without HELM_KUBECONTEXT and HELM_NAMESPACE: kubectl does not read them"
  before=
  for each in "$@"; do
    case $each in
      -n | -n=* | --namespace | --namespace=* | --kube-context | --kube-context=* | --kubeconfig | --kubeconfig=*)
        lack "arguments without $each: set NAMESPACE, or KUBECONFIG to a file whose current context is right" ;;
    esac
    case $before in
      -f | --values)
        [ -f "$each" ] || lack "a values file $each: it is read several times, so give a regular file" ;;
    esac
    before=$each
  done
}

check_files() {
  for tool in kubectl helm tar sha256sum; do
    command -v "$tool" >/dev/null || lack "$tool: put it on the PATH"
  done
  if [ -f "$root/SHA256SUMS" ]; then
    (cd "$root" && sha256sum --quiet -c SHA256SUMS >&2) ||
      lack "files of the bundle as they were written: fetch it again"
  fi
}

# Sets `minor` to the cluster's version, 35 for 1.35; empty without a cluster.
check_version() {
  minor=$(kubectl version -o json 2>/dev/null | tr -d ' \n' |
    sed -n 's/.*"serverVersion":{[^}]*"gitVersion":"v1\.\([0-9]*\)[^"]*".*/\1/p')
  if [ -z "$minor" ]; then
    lack "a cluster: kubectl reaches none (KUBECONFIG is ${KUBECONFIG:-not set})"
  elif [ "$minor" -lt 30 ]; then
    lack "Kubernetes 1.30 or later: the cluster has 1.$minor"
  else
    as_of=1.$minor
  fi
}

# Renders the chart with the values, as of the cluster's version.
render() {
  helm template "$release" "$chart" -n "$namespace" ${as_of:+--kube-version "$as_of"} "$@"
}

# Whose models these are: a claim that stands for one that no value names is still there if so.
choose_models() {
  printf 'repository: {pvc: {claimName: claim-of-the-install-script}}\n' >"$work/claim.yaml"
  if ! render -f "$work/claim.yaml" "$@" >"$work/rendered.yaml" 2>"$work/said"; then
    # A claim that is named "" is not named.
    grep -q 'repository.pvc.claimName is empty' "$work/said" &&
      render "$@" -f "$work/claim.yaml" >"$work/rendered.yaml" 2>"$work/said" || {
      cat "$work/said" >&2
      lack "values that the chart takes: see the message above"
      return
    }
  fi
  grep -q '"claim-of-the-install-script"' "$work/rendered.yaml" || return 0
  ours=1
  if grep -q 'mountPath: /repository, .*subPath:' "$work/rendered.yaml"; then
    lack "values without repository.pvc.subPath, or with repository.pvc.claimName: models that are brought in have folders of their own"
  fi
  [ -f "$models/manifest.json" ] || {
    lack "a model repository in $models: run \`wanwu export SOURCE --output $models\`, or name yours in repository.*"
    return
  }
  folder=$(sha256sum "$models/manifest.json" | cut -c 1-12)
  printf 'repository: {pvc: {claimName: "%s", subPath: "%s"}}\n' "$claim" "$folder" >"$work/claim.yaml"
}

may() { kubectl auth can-i "$@" >/dev/null 2>&1; }

# Prints the names that pods need and the chart does not make: Secret/NAME, ...
names_needed() {
  awk '
    /^kind: / { kind = $2 }
    /^  name: / && kind == "Secret" { made["Secret/" $2] = 1 }
    /^  secretName: / && kind == "Certificate" { made["Secret/" $2] = 1 }
    kind ~ /^(Deployment|StatefulSet|Pod)$/ {
      line = $0
      while (match(line, /(secretName: |secretKeyRef: \{name: |secretRef: \{name: |claimName: )"[^"]*"/)) {
        found = substr(line, RSTART, RLENGTH)
        line = substr(line, RSTART + RLENGTH)
        split(found, part, "\"")
        needed[(found ~ /^claimName/ ? "PersistentVolumeClaim/" : "Secret/") part[2]] = 1
      }
      if (pulls && $1 == "-") needed["Secret/" $3] = 1
      pulls = (/^ *imagePullSecrets:$/ || (pulls && $1 == "-"))
    }
    END { for (each in needed) if (!(each in made)) print each }
  ' "$work/rendered.yaml" | sort
}

check_cluster() {
  may create deployments.apps -n "$namespace" ||
    lack "the right to create Deployments in namespace $namespace"
  here=1
  kubectl get namespace "$namespace" >/dev/null 2>&1 || here=
  [ -n "$here" ] || may create namespaces ||
    lack "namespace $namespace, or the right to create it"
  for each in $(names_needed); do
    if [ -n "$ours" ] && [ "${each%%/*}" = PersistentVolumeClaim ]; then
      case ${each#*/} in "$claim" | claim-of-the-install-script) continue ;; esac
    fi
    k get "$each" >/dev/null 2>&1 || lack "$each in namespace $namespace, which your values name"
  done
  needs() { grep -q "$1" "$work/rendered.yaml"; }
  default_class() {
    kubectl get storageclass -o yaml 2>/dev/null |
      grep -q 'storageclass.kubernetes.io/is-default-class: "true"'
  }
  if [ -n "$ours" ] && class=$(k get persistentvolumeclaim "$claim" \
      -o 'jsonpath={.spec.storageClassName}' 2>/dev/null); then
    [ "${STORAGE_CLASS:-$class}" = "$class" ] ||
      lack "the claim $claim with class $STORAGE_CLASS: it is there with class ${class:-of the cluster}; delete it, or leave STORAGE_CLASS out"
  elif [ -n "$ours" ]; then
    if [ -n "${STORAGE_CLASS:-}" ]; then
      kubectl get storageclass "$STORAGE_CLASS" >/dev/null 2>&1 ||
        lack "the StorageClass $STORAGE_CLASS: kubectl get storageclass lists those there are"
    else
      default_class ||
        lack "a default StorageClass: set STORAGE_CLASS to one that lets many pods read a claim"
    fi
  fi
  if needs 'volumeClaimTemplates:' && ! needs 'storageClassName:'; then
    default_class || lack "a default StorageClass for the audit log: or set gateway.audit.storageClassName"
  fi
  if [ -n "$ours" ]; then
    may create pods --subresource=exec -n "$namespace" ||
      lack "the right to exec into pods in namespace $namespace, by which models are brought in"
    may create persistentvolumeclaims -n "$namespace" ||
      lack "the right to create PersistentVolumeClaims in namespace $namespace"
  fi
  if needs 'kind: KIND_GPU'; then
    kubectl get nodes -o yaml 2>/dev/null | grep -q 'nvidia.com/' ||
      lack "a node with a GPU resource: install the GPU operator, or set triton.profile to cpu"
  fi
  kubectl api-versions >"$work/apis" 2>/dev/null || :
  for pair in \
    'name: cpu=metrics.k8s.io=metrics-server, or gateway.autoscaling.enabled: false' \
    'name: wanwu_p95_ms=external.metrics.k8s.io=prometheus-adapter (k8s/prometheus-adapter)' \
    'metric: {name: wanwu_gpu_utilization}=custom.metrics.k8s.io=prometheus-adapter (k8s/prometheus-adapter)' \
    'kind: ScaledObject=keda.sh=KEDA (k8s/keda)' \
    'kind: PodMonitor=monitoring.coreos.com=the Prometheus operator, or monitoring.enabled: false' \
    'kind: Certificate=cert-manager.io=cert-manager, or triton.tls.existingSecret' \
    'kind: HTTPRoute=gateway.networking.k8s.io=the Gateway API, or gateway.httpRoute.enabled: false'
  do
    what=${pair%%=*} rest=${pair#*=}
    if needs "$what" && ! grep -q "^${rest%%=*}/" "$work/apis"; then
      lack "${rest#*=}: the cluster has no API ${rest%%=*}"
    fi
  done
}

minor='' as_of='' ours='' folder='' here=''
check_arguments "$@"
check_files
! command -v kubectl >/dev/null || check_version
if command -v helm >/dev/null; then
  choose_models "$@"
fi
if [ -n "$ours" ] && [ -n "$folder" ]; then
  # What the export wrote beside the models goes first: yours is laid over it, and the claim over all.
  if [ -f "$models/values.yaml" ]; then set -- -f "$models/values.yaml" "$@"; fi
  set -- "$@" -f "$work/claim.yaml"
  render "$@" >"$work/rendered.yaml"
fi
if [ -n "$minor" ] && [ -s "$work/rendered.yaml" ]; then check_cluster; fi
[ "$missing" = 0 ] || { say "nothing was changed" >&2; exit 1; }
if [ -n "$ours" ]; then
  say "everything is there; the models are those of $models"
else
  say "everything is there; the models are those that repository.* of your values names"
fi
[ "$action" = install ] || exit 0

if [ -z "$here" ]; then
  # In one request: a namespace that is there is taken for someone's own, and left as it is.
  kubectl apply -f - <<YAML
apiVersion: v1
kind: Namespace
metadata: {name: $namespace, labels: {pod-security.kubernetes.io/enforce: restricted}}
YAML
fi

# The models travel into the claim through a pod of the gateway's image, which has tar.
bring_models() {
  k get persistentvolumeclaim "$claim" >/dev/null 2>&1 || k apply -f - <<YAML
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: $claim}
spec:
  accessModes: [ReadWriteMany]
  ${STORAGE_CLASS:+storageClassName: $STORAGE_CLASS}
  resources: {requests: {storage: $size}}
YAML
  k delete pod "$claim" --ignore-not-found --wait
  trap 'k delete pod "$claim" --ignore-not-found --wait=false || :; rm -rf "$work"' EXIT
  # Image and pull secrets as the chart's own pods have them.
  render "$@" -s templates/tests/doctor.yaml >"$work/doctor.yaml"
  image=$(sed -n 's/^ *image: //p' "$work/doctor.yaml")
  pull=$(awk 'on && $1 == "-" { names = names "{name: " $3 "}, "; next }
    { on = /^ *imagePullSecrets:$/ } END { print "[" names "]" }' "$work/doctor.yaml")
  k apply -f - <<YAML
apiVersion: v1
kind: Pod
metadata: {name: $claim, labels: {app.kubernetes.io/name: wanwu-models}}
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  imagePullSecrets: $pull
  securityContext: {runAsNonRoot: true, runAsUser: 1000, runAsGroup: 1000, fsGroup: 1000, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: models
      image: $image
      command: [sleep, "7200"]
      securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
      resources: {requests: {cpu: 100m, memory: 64Mi}, limits: {memory: 512Mi}}
      volumeMounts: [{name: models, mountPath: /models}]
  volumes: [{name: models, persistentVolumeClaim: {claimName: $claim}}]
YAML
  k wait --for=condition=Ready "pod/$claim" --timeout=5m
  if k exec "$claim" -- test -f "/models/$folder/manifest.json"; then
    say "the claim $claim has these models already, in $folder"
  else
    # Whole or not at all: the folder has its name once everything is in it.
    {
      tar -C "$models" --exclude=.lock --exclude=.staging --exclude=.work -cf - . ||
        touch "$work/unread"
    } | k exec -i "$claim" -- sh -ec '
      rm -rf /models/.half; mkdir /models/.half
      tar -C /models/.half -xf -' sh
    [ ! -f "$work/unread" ] || { say "$models could not be read to its end" >&2; exit 1; }
    k exec "$claim" -- mv /models/.half "/models/$folder"
  fi
}
if [ -n "$ours" ]; then bring_models "$@"; fi

helm upgrade --install "$release" "$chart" -n "$namespace" --wait --timeout 30m "$@"
# Not --logs: helm 3 looks for them once a pod that succeeded is gone.
helm test "$release" -n "$namespace" || {
  k logs -l "app.kubernetes.io/instance=$release,app.kubernetes.io/component=test" --tail=-1 || :
  exit 1
}
