#!/bin/sh
# Installs Wanwu into the cluster that kubectl speaks to, from an unpacked bundle or from a checkout.
# Nothing is changed before everything that is needed is there; what is missing is told at once.
#
#   sh k8s/airgap/install.sh check   -f mine.yaml      # is everything there?
#   sh k8s/airgap/install.sh install -f mine.yaml      # check, bring the models in, install, test
#
# mine.yaml is your values file: imageRegistry, gateway.auth.keysSecret, and what else you set.
# Environment: NAMESPACE (wanwu), RELEASE (wanwu), STORAGE_CLASS (the cluster's default),
# MODELS_SIZE (20Gi), KUBECONFIG.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
namespace=${NAMESPACE:-wanwu} release=${RELEASE:-wanwu} size=${MODELS_SIZE:-20Gi}
chart=$root/helm/wanwu models=$root/model_repository
claim=$release-models
missing=0

say() { printf '%s\n' "$*"; }
lack() { missing=1; printf 'missing: %s\n' "$*" >&2; }
usage() { sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2; }

[ $# -ge 1 ] || usage
action=$1; shift
case $action in check | install) ;; *) usage ;; esac

check_files() {
  for tool in kubectl helm; do
    command -v "$tool" >/dev/null || lack "$tool: put it on the PATH"
  done
  [ -f "$models/manifest.json" ] ||
    lack "a model repository in $models: run \`wanwu export SOURCE --output $models\`"
  if [ -f "$root/SHA256SUMS" ]; then
    (cd "$root" && sha256sum --quiet -c SHA256SUMS >&2) ||
      lack "files of the bundle as they were written: fetch it again"
  fi
}

check_values() {
  helm template "$release" "$chart" -n "$namespace" $(model_values) "$@" >/dev/null ||
    lack "values that the chart takes: see the message above"
}

# The values that `wanwu export` wrote beside the models, and the claim they are brought into.
model_values() {
  [ ! -f "$models/values.yaml" ] || printf ' -f %s' "$models/values.yaml"
  printf ' --set repository.source=pvc --set repository.pvc.claimName=%s' "$claim"
}

check_cluster() {
  if ! version=$(kubectl version -o json 2>/dev/null) || ! said=$(printf '%s' "$version" |
      tr -d ' \n' | sed -n 's/.*"serverVersion":{[^}]*"gitVersion":"v1\.\([0-9]*\)[^"]*".*/\1/p') ||
      [ -z "$said" ]; then
    lack "a cluster: kubectl reaches none (KUBECONFIG is ${KUBECONFIG:-not set})"
    return
  fi
  [ "$said" -ge 30 ] || lack "Kubernetes 1.30 or later: the cluster has 1.$said"
  kubectl auth can-i create deployments.apps -n "$namespace" >/dev/null 2>&1 ||
    lack "the right to create Deployments in namespace $namespace"
  if [ -z "${STORAGE_CLASS:-}" ]; then
    kubectl get storageclass -o yaml 2>/dev/null |
      grep -q 'storageclass.kubernetes.io/is-default-class: "true"' ||
      lack "a default StorageClass: set STORAGE_CLASS to one that lets many pods read a claim"
  else
    kubectl get storageclass "$STORAGE_CLASS" >/dev/null 2>&1 ||
      lack "the StorageClass $STORAGE_CLASS: kubectl get storageclass lists those there are"
  fi
  rendered=$(helm template "$release" "$chart" -n "$namespace" $(model_values) "$@" 2>/dev/null) || return 0
  needs() { printf '%s\n' "$rendered" | grep -q "$1"; }
  if needs 'kind: KIND_GPU'; then
    kubectl get nodes -o yaml 2>/dev/null | grep -q 'nvidia.com/' ||
      lack "a node with a GPU resource: install the GPU operator, or set triton.profile to cpu"
  fi
  for pair in \
    'name: wanwu_p95_ms=external.metrics.k8s.io=prometheus-adapter (k8s/prometheus-adapter)' \
    'kind: ScaledObject=keda.sh=KEDA (k8s/keda)' \
    'kind: PodMonitor=monitoring.coreos.com=the Prometheus operator, or monitoring.enabled: false' \
    'kind: Certificate=cert-manager.io=cert-manager, or triton.tls.existingSecret' \
    'kind: HTTPRoute=gateway.networking.k8s.io=the Gateway API, or gateway.httpRoute.enabled: false'
  do
    what=${pair%%=*} rest=${pair#*=}
    if needs "$what" && ! kubectl api-versions 2>/dev/null | grep -q "^${rest%%=*}/"; then
      lack "${rest#*=}: the cluster has no API ${rest%%=*}"
    fi
  done
}

check_files
[ "$missing" = 1 ] || check_values "$@"
! command -v kubectl >/dev/null || check_cluster "$@"
[ "$missing" = 0 ] || { say "nothing was changed" >&2; exit 1; }
say "everything is there"
[ "$action" = install ] || exit 0

kubectl get namespace "$namespace" >/dev/null 2>&1 || kubectl create namespace "$namespace"
kubectl label --overwrite namespace "$namespace" pod-security.kubernetes.io/enforce=restricted

# The models travel into a claim through a pod of the gateway's image, which has tar.
image=$(helm template "$release" "$chart" -n "$namespace" $(model_values) "$@" |
  sed -n 's/^ *image: "\{0,1\}\([^"]*gateway[^"]*\)"\{0,1\}$/\1/p' | head -n 1)
kubectl apply -n "$namespace" -f - <<YAML
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: $claim}
spec:
  accessModes: [ReadWriteMany]
  ${STORAGE_CLASS:+storageClassName: $STORAGE_CLASS}
  resources: {requests: {storage: $size}}
YAML
kubectl delete pod -n "$namespace" "$claim" --ignore-not-found --wait
kubectl apply -n "$namespace" -f - <<YAML
apiVersion: v1
kind: Pod
metadata: {name: $claim, labels: {app.kubernetes.io/name: wanwu-models}}
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  securityContext: {runAsNonRoot: true, runAsUser: 1000, fsGroup: 1000, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: models
      image: $image
      command: [sleep, "3600"]
      securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
      volumeMounts: [{name: models, mountPath: /models}]
  volumes: [{name: models, persistentVolumeClaim: {claimName: $claim}}]
YAML
kubectl wait -n "$namespace" --for=condition=Ready "pod/$claim" --timeout=5m
tar -C "$models" -cf - . | kubectl exec -i -n "$namespace" "$claim" -- tar -C /models -xf -
kubectl delete pod -n "$namespace" "$claim" --wait=false

helm upgrade --install "$release" "$chart" -n "$namespace" $(model_values) "$@" --wait --timeout 30m
helm test "$release" -n "$namespace" --logs
