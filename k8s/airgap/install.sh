#!/bin/sh
# Installs Wanwu into the cluster that kubectl speaks to, from an unpacked bundle or from a checkout.
# Nothing is changed before everything that is needed is there. All that is missing is listed at once,
# and what you may not look at is listed as not checked, which stops nothing.
#
#   sh k8s/airgap/install.sh check   -f mine.yaml      # is everything there?
#   sh k8s/airgap/install.sh install -f mine.yaml      # check, bring the models in, install, test
#
# What follows the verb is given to helm: -f, --set, --timeout.
# mine.yaml is your values file: imageRegistry, gateway.auth.keysSecret, and what else you set. Where
# it names no models (repository.*), those of model_repository are brought into a claim, each version
# into a folder of its own, so that a rollback finds its models.
# Environment: NAMESPACE (wanwu), RELEASE (wanwu), STORAGE_CLASS (the cluster's default),
# ACCESS_MODE (ReadWriteMany; ReadWriteOnce where all pods run on one node), MODELS_SIZE (20Gi),
# WANWU_MODEL_REPOSITORY (model_repository), KUBECONFIG.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
namespace=${NAMESPACE:-wanwu} release=${RELEASE:-wanwu} size=${MODELS_SIZE:-20Gi}
mode=${ACCESS_MODE:-ReadWriteMany}
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
unchecked() { printf 'not checked: %s\n' "$*" >&2; }
usage() { sed -n '1d; s/^# \{0,1\}//p; /^set/q' "$0" >&2; exit 2; }
# kubectl in the release's namespace.
k() { kubectl -n "$namespace" "$@"; }

# Writes what kubectl answers to $work/answer. Returns 0 where the thing is there, 1 where it is
# missing, 2 where this user may not look, 3 where the answer is another error, which is lacked.
look() {
  kubectl "$@" >"$work/answer" 2>"$work/said" && return 0
  case $(cat "$work/said") in
    *'(NotFound)'*) return 1 ;;
    *'(Forbidden)'*) return 2 ;;
  esac
  lack "an answer to \`kubectl $*\`: $(cat "$work/said")"
  return 3
}

# expect WHAT ARGUMENTS: lacks WHAT unless `kubectl ARGUMENTS` finds it. Returns what `look` does.
expect() {
  what=$1 state=0
  shift
  look "$@" || state=$?
  case $state in
    1) lack "$what" ;;
    2) unchecked "$what (you may not \`kubectl $*\`)" ;;
  esac
  return $state
}

# Whether this user has a right. Where the cluster does not say, the right is taken to be there.
may() {
  answer=$(kubectl auth can-i "$@" 2>"$work/said") || :
  case $answer in
    yes*) return 0 ;;
    # A kind that the cluster does not have is not one that is denied.
    no*) grep -q "doesn't have a resource type" "$work/said" ;;
    *) unchecked "the right to $1 $2 (the cluster does not say)" ;;
  esac
}

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
      -n* | --namespace | --namespace=* | --kube-context | --kube-context=* | --kubeconfig | --kubeconfig=*)
        lack "arguments without $each: set NAMESPACE, or KUBECONFIG to a file whose current context is right" ;;
    esac
    file=
    case $before in -f | --values) file=$each ;; esac
    case $each in
      --values=* | -f=*) file=${each#*=} ;;
      -f?*) file=${each#-f} ;;
    esac
    [ -z "$file" ] || [ -f "$file" ] ||
      lack "a values file $file: it is read several times, so give a regular file"
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
    # What the chart looks for where monitoring.enabled is auto.
    operator=$(kubectl api-resources --api-group=monitoring.coreos.com --no-headers 2>/dev/null |
      awk '{ kinds = kinds sep $(NF - 2) "/" $NF; sep = "," } END { print kinds }') || operator=
  fi
}

# Renders the chart with the values, as of the cluster's version and kinds.
render() {
  helm template "$release" "$chart" -n "$namespace" ${as_of:+--kube-version "$as_of"} \
    ${operator:+--api-versions "$operator"} "$@"
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

# Prints a quantity of Kubernetes, such as 20Gi, in KiB; nothing for what is none.
kibibytes() {
  printf '%s\n' "$1" | awk '
    /^[0-9]+(\.[0-9]+)?([kMGTPE]|[KMGTPE]i)?$/ {
      unit = $0; sub(/^[0-9.]+/, "", unit)
      power = index("kMGTPE", toupper(substr(unit, 1, 1)) == "K" ? "k" : substr(unit, 1, 1))
      if (unit == "") power = 0
      printf "%.0f\n", $0 * (unit ~ /i$/ ? 1024 : 1000) ^ power / 1024
    }'
}

# check_size QUANTITY WHAT: WHAT must hold the models.
check_size() {
  holds=$(kibibytes "$1")
  takes=$(du -sk "$models" | cut -f 1)
  if [ -z "$holds" ]; then
    lack "$2 as a quantity such as 20Gi: it is '$1'"
  elif [ "$holds" -lt "$takes" ]; then
    lack "$2 of at least $((takes / 1024 + 1))Mi, which the models take: it is $1"
  fi
}

# Prints the names that pods need and the chart does not make: Secret/NAME, RuntimeClass/NAME, ...
# What the chart writes is in braces, {secretName: "NAME"}; what values add is in blocks.
names_needed() {
  awk '
    function need(kind, name) { gsub(/[",]/, "", name); needed[kind "/" name] = 1 }
    {
      key = ($1 == "-" ? $2 : $1)
      column = match($0, /[^ -]/)
    }
    block && column <= at {
      if (named && !optional) need(block, named)
      block = ""
    }
    /^kind: / { kind = $2 }
    /^  name: / && kind ~ /^(Secret|ConfigMap)$/ { gsub(/"/, "", $2); made[kind "/" $2] = 1 }
    /^  secretName: / && kind == "Certificate" { made["Secret/" $2] = 1 }
    kind ~ /^(Deployment|StatefulSet|Pod)$/ {
      line = $0
      while (match(line, /(secretName: |secret(KeyRef|Ref)?: \{name: |claimName: )"[^"]*"/)) {
        found = substr(line, RSTART, RLENGTH)
        line = substr(line, RSTART + RLENGTH)
        split(found, part, "\"")
        need(found ~ /^claimName/ ? "PersistentVolumeClaim" : "Secret", part[2])
      }
      if (pulls && $1 == "-") need("Secret", $3)
      pulls = (/^ *imagePullSecrets:$/ || (pulls && $1 == "-"))
      if (key == "runtimeClassName:") need("RuntimeClass", $2)
      if (key == "priorityClassName:") need("PriorityClass", $2)
      if (block && key ~ /^(name|secretName|claimName):$/) named = $NF
      if (block && /optional: true$/) optional = 1
      if (!block && /^[ -]*(secret|configMap)(KeyRef|Ref)?:$|^[ -]*persistentVolumeClaim:$/) {
        block = (key ~ /^s/ ? "Secret" : key ~ /^c/ ? "ConfigMap" : "PersistentVolumeClaim")
        at = column
        named = optional = ""
      }
    }
    END { for (each in needed) if (!(each in made)) print each }
  ' "$work/rendered.yaml" | sort
}

# Prints every kind that the chart makes: deployment.apps, secret, ...
kinds_made() {
  awk '
    /^apiVersion: / { group = ""; if (split($2, part, "/") == 2) group = "." part[1] }
    /^kind: / { print tolower($2) group }
  ' "$work/rendered.yaml" | sort -u
}

# Prints the devices that a pod asks for, how many, and the number of pods: nvidia.com/gpu 1 2, ...
devices_needed() {
  awk '
    /^kind: / { pods = 1 }
    /^  replicas: / { pods = $2 }
    NF == 1 { on = ($1 == "limits:") }
    on && $1 ~ /\/.*:$/ { gsub(/"/, ""); sub(/:$/, "", $1); print $1, $2, pods }
  ' "$work/rendered.yaml" | sort -u
}

check_rights() {
  # An upgrade also changes what is there, and helm 4 makes objects by patches too.
  verbs=create
  case $(helm version --short) in v3*) ;; *) verbs='create patch' ;; esac
  look -n "$namespace" get secret -l "owner=helm,name=$release" -o name || :
  [ ! -s "$work/answer" ] || verbs='create patch'
  for kind in $(kinds_made); do
    denied=
    for verb in $verbs; do
      may "$verb" "$kind" -n "$namespace" || denied="$denied${denied:+, }$verb"
    done
    [ -z "$denied" ] || lack "the right to $denied $kind in namespace $namespace"
  done
  [ -n "$ours" ] || return 0
  # By these the models are brought in.
  for right in 'create persistentvolumeclaims' 'get persistentvolumeclaims' 'create pods' 'get pods' \
    'watch pods' 'delete pods' 'create pods --subresource=exec'
  do
    # Each is a few words.
    # shellcheck disable=SC2086
    may $right -n "$namespace" || lack "the right to $right in namespace $namespace"
  done
}

check_namespace() {
  here=1 state=0
  look get namespace "$namespace" || state=$?
  case $state in
    1) here=; may create namespaces || lack "namespace $namespace, or the right to create it" ;;
    2) unchecked "namespace $namespace (you may not look; it is taken to be there)" ;;
  esac
}

# A claim that is there must be bound, or be one that a pod binds.
check_claim() {
  expect "PersistentVolumeClaim/$1 in namespace $namespace, which your values name" \
    -n "$namespace" get persistentvolumeclaim "$1" \
    -o 'jsonpath={.status.phase} {.spec.storageClassName}' || return 0
  read -r phase class <"$work/answer" || :
  case $phase in
    Lost) lack "a volume for the claim $1: it is Lost" ;;
    Pending)
      state=1
      [ -z "$class" ] || { state=0; look get storageclass "$class" -o 'jsonpath={.volumeBindingMode}' || state=$?; }
      if [ $state = 2 ]; then
        unchecked "a volume for the claim $1 (it is Pending, and you may not look at its StorageClass)"
      elif [ $state != 0 ] || [ "$(cat "$work/answer")" != WaitForFirstConsumer ]; then
        lack "a volume for the claim $1: it is Pending, and \`kubectl -n $namespace describe pvc $1\` says why"
      fi ;;
  esac
}

# expect_default WHAT: lacks WHAT where the cluster has no default StorageClass; else sets
# `provisioner` to the default's.
expect_default() {
  state=0 provisioner=
  look get storageclass -o 'jsonpath={range .items[*]}{.metadata.annotations.storageclass\.kubernetes\.io/is-default-class} {.provisioner}{"\n"}{end}' || state=$?
  case $state in
    0)
      grep -q '^true ' "$work/answer" || lack "$1"
      provisioner=$(sed -n 's/^true //p' "$work/answer" | sed 1q) ;;
    2) unchecked "$1 (you may not \`kubectl get storageclass\`)" ;;
  esac
}

# A claim of these stays Pending if pods of several nodes are to read it.
check_provisioner() {
  [ "$mode" = ReadWriteMany ] || return 0
  case $1 in
    rancher.io/local-path | kubernetes.io/host-path | k8s.io/minikube-hostpath | microk8s.io/hostpath | \
      docker.io/hostpath | openebs.io/local | topolvm.io | ebs.csi.aws.com | disk.csi.azure.com)
      lack "a StorageClass whose claims pods of several nodes can read, in STORAGE_CLASS: $1 makes volumes for one node; where all pods run on one, set ACCESS_MODE=ReadWriteOnce; or make the claim $claim yourself" ;;
  esac
}

# The claim that the models are brought into, there or not.
check_models_claim() {
  state=0
  look -n "$namespace" get persistentvolumeclaim "$claim" \
    -o 'jsonpath={.spec.resources.requests.storage} {.spec.storageClassName}' || state=$?
  if [ $state = 0 ]; then
    read -r holds class <"$work/answer" || :
    [ "${STORAGE_CLASS:-$class}" = "$class" ] ||
      lack "the claim $claim with class $STORAGE_CLASS: it is there with class ${class:-of the cluster}; delete it, or leave STORAGE_CLASS out"
    check_size "$holds" "the claim $claim"
    check_claim "$claim"
    return
  fi
  check_size "$size" MODELS_SIZE
  case $mode in
    ReadWriteMany | ReadWriteOnce) ;;
    *) lack "ACCESS_MODE as ReadWriteMany or ReadWriteOnce: it is '$mode'" ;;
  esac
  if [ -n "${STORAGE_CLASS:-}" ]; then
    expect "the StorageClass $STORAGE_CLASS: kubectl get storageclass lists those there are" \
      get storageclass "$STORAGE_CLASS" -o 'jsonpath={.provisioner}' || return 0
    provisioner=$(cat "$work/answer")
  else
    expect_default "a default StorageClass: set STORAGE_CLASS to one that lets many pods read a claim"
  fi
  check_provisioner "$provisioner"
}

# What no node lists beside a device that one does is counted by a scheduler of its own, as HAMi
# counts memory (nvidia.com/gpumem).
check_devices() {
  devices_needed >"$work/devices"
  : >"$work/offers"
  while read -r device count pods; do
    state=0
    look get nodes -o \
      "go-template={{range .items}}{{index .status.allocatable \"$device\"}}{{\"\\n\"}}{{end}}" </dev/null || state=$?
    case $state in
      0) awk -v device="$device" -v count="$count" -v pods="$pods" '
          /^[0-9]/ { listed = 1; fit += int($1 / count) }
          END { print listed + 0, device, count, pods, fit + 0 }' "$work/answer" >>"$work/offers" ;;
      2) unchecked "a node that offers $count $device (you may not \`kubectl get nodes\`)" ;;
    esac
  done <"$work/devices"
  counted=0
  ! grep -q '^1 ' "$work/offers" || counted=1
  while read -r listed device count pods fit; do
    [ "$listed" = 1 ] || [ "$counted" = 0 ] || continue
    if [ "$fit" = 0 ]; then
      lack "a node that offers $count $device: install the GPU operator, set triton.gpu.resourceName to what \`kubectl describe nodes\` lists, or triton.profile to cpu"
    elif [ "$fit" -lt "$pods" ]; then
      later="${later}later: $pods pods want $count $device each and the nodes hold $fit: add nodes, or lower autoscaling.minReplicas or triton.replicas; until then the install waits for the rest
"
    fi
  done <"$work/offers"
}

check_cluster() {
  check_rights
  check_namespace
  needs() { grep -q "$1" "$work/rendered.yaml"; }
  for each in $(names_needed); do
    case $each in
      PersistentVolumeClaim/"$claim" | PersistentVolumeClaim/claim-of-the-install-script)
        [ -n "$ours" ] || check_claim "$claim" ;;
      PersistentVolumeClaim/*) check_claim "${each#*/}" ;;
      RuntimeClass/* | PriorityClass/*) expect "$each, which your values name" get "$each" || : ;;
      *) expect "$each in namespace $namespace, which your values name" \
        -n "$namespace" get "$each" || : ;;
    esac
  done
  [ -z "$ours" ] || check_models_claim
  if needs 'volumeClaimTemplates:' && ! needs 'storageClassName:'; then
    expect_default "a default StorageClass for the audit log: or set gateway.audit.storageClassName"
  fi
  check_devices
  kubectl api-versions >"$work/apis"
  for pair in \
    'name: cpu=metrics.k8s.io=metrics-server, or gateway.autoscaling.enabled: false' \
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
  # The rest runs without it.
  if needs 'name: wanwu_' && ! grep -q '^external.metrics.k8s.io/' "$work/apis"; then
    later="${later}later: prometheus-adapter (k8s/prometheus-adapter), or autoscaling.driver: none; until then Triton stays at its least pods
"
  fi
}

minor='' as_of='' operator='' later='' ours='' folder='' here=''
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
printf %s "$later"
[ "$action" = install ] || exit 0

if [ -z "$here" ]; then
  # In one request: a namespace that is there is taken for someone's own, and left as it is.
  sed "s/^  name: wanwu$/  name: $namespace/" "$root/k8s/namespace/namespace.yaml" | kubectl apply -f -
fi

# The models travel into the claim through a pod of the gateway's image, which has tar.
bring_models() {
  k get persistentvolumeclaim "$claim" >/dev/null 2>&1 || k apply -f - <<YAML
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: $claim}
spec:
  accessModes: [$mode]
  ${STORAGE_CLASS:+storageClassName: $STORAGE_CLASS}
  resources: {requests: {storage: $size}}
YAML
  k delete pod "$claim" --ignore-not-found --wait
  trap 'k delete pod "$claim" --ignore-not-found --wait=false || :; rm -rf "$work"' EXIT
  # Image, pull secrets, user and nodes as the chart's own pods of this image have them.
  render "$@" -s templates/tests/doctor.yaml >"$work/doctor.yaml"
  image=$(sed -n 's/^ *image: //p' "$work/doctor.yaml")
  pod=$(sed -n '/^spec:$/,/^  containers:$/{//!p;}' "$work/doctor.yaml")
  k apply -f - <<YAML
apiVersion: v1
kind: Pod
metadata: {name: $claim, labels: {app.kubernetes.io/name: wanwu-models}}
spec:
$pod
  containers:
    - name: models
      image: $image
      # As the first process a bare sleep would not hear that it is to end.
      command: [sh, -c, "trap 'exit 0' TERM; sleep 7200 & wait"]
      securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
      resources: {requests: {cpu: 100m, memory: 64Mi}, limits: {memory: 512Mi}}
      volumeMounts: [{name: models, mountPath: /models}]
  volumes: [{name: models, persistentVolumeClaim: {claimName: $claim}}]
YAML
  k wait --for=condition=Ready "pod/$claim" --timeout=5m || {
    k describe "pod/$claim" "persistentvolumeclaim/$claim" | sed -n '/^Name:/p; /^Events:/,/^$/p' >&2
    exit 1
  }
  # A command that fails would have kubectl print an error where all is well.
  brought=$(k exec "$claim" -- sh -c 'if test -f "$1"; then echo yes; fi' sh "/models/$folder/manifest.json")
  if [ "$brought" = yes ]; then
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

# Sets `seconds` to what a rollout of Triton may take: an install starts all pods at once, an upgrade
# as many at a time as surge, and each has until its deadline, after an old one has ended.
time_rollout() {
  render "$@" -s templates/triton/deployment.yaml >"$work/triton.yaml"
  # field NAME DEFAULT: a number of the Deployment's.
  field() { sed -n "s/.*$1: \([0-9]*\).*/\1/p; \$s/.*/$2/p" "$work/triton.yaml" | sed 1q; }
  live=$(k get deployment "$(sed -n 's/^  name: //p' "$work/triton.yaml")" --ignore-not-found \
    -o 'jsonpath={.spec.replicas}' 2>/dev/null) || live=
  surge=$(field maxSurge 1) waves=1
  if [ -n "$live" ]; then
    [ "$live" -ge "$(field replicas 1)" ] || live=$(field replicas 1)
    [ "$surge" -gt 0 ] || surge=1
    waves=$(((live + surge - 1) / surge))
  fi
  seconds=$((waves * ($(field progressDeadlineSeconds 600) + $(field terminationGracePeriodSeconds 30))))
}
time_rollout "$@"
say "waiting at most $((seconds / 60)) minutes for the rollout"
helm upgrade --install "$release" "$chart" -n "$namespace" --wait --timeout "${seconds}s" "$@"
# Not --logs: helm 3 looks for them once a pod that succeeded is gone.
helm test "$release" -n "$namespace" || {
  k logs -l "app.kubernetes.io/instance=$release,app.kubernetes.io/component=test" --tail=-1 || :
  exit 1
}
