#!/bin/sh
# Checks the manifests under deploy/kubernetes/ against Kubernetes' own types, and what kustomize makes of them where
# kubectl or kustomize is there. Ends with `N passed, N failed, N skipped`.
# shellcheck disable=SC2317 # functions are called through check
set -eu

CDPATH='' cd -- "$(dirname -- "$0")/.."
# shellcheck source=tests/support/check.sh
. tests/support/check.sh

work=$(mktemp -d)
log=$work/log
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP

if ! command -v npm >/dev/null 2>&1 || ! npm install --no-audit --no-fund --prefix "$work" \
    @kubernetes/client-node@1 typescript@5 yaml@2 @types/node@20 >"$log" 2>&1; then
    echo "SKIP kubernetes - npm could not install the types"
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
fi

# types_hold FILE...
types_hold() {
    node tests/support/kubernetes_types.mjs "$work" "$@"
    (cd "$work" && npx --no-install tsc --strict --noEmit --skipLibCheck --target es2022 --module nodenext \
        --moduleResolution nodenext manifests.ts)
}

manifests_hold() {
    set -- deploy/kubernetes/base/*.yaml deploy/kubernetes/example/*.yaml
    for file in "$@"; do
        shift
        case $file in
        */weir.yaml) ;; # weir's own
        */resources.yaml) set -- "$@" "+$file" ;;
        *) set -- "$@" "$file" ;;
        esac
    done
    types_hold "$@"
}

# refused FILE SED-SCRIPT WORD: with this change the file does not hold.
refused() {
    sed "$2" "$1" >"$work/broken.yaml"
    ! cmp -s "$1" "$work/broken.yaml" || return 1
    if types_hold "$work/broken.yaml" >"$work/said" 2>&1; then
        echo "accepted: $2"
        return 1
    fi
    grep -- "$3" "$work/said"
}

# A check that cannot fail proves nothing.
mistakes_are_found() {
    base=deploy/kubernetes/base
    refused "$base"/deployment.yaml 's/readOnlyRootFilesystem/readOnlyRootFileSystem/' readOnlyRootFileSystem
    refused "$base"/deployment.yaml 's/containerPort: 8080/containerPort: "8080"/' 'Type .string. is not assignable'
    refused "$base"/deployment.yaml 's/^  selector:/  selectors:/' selector
    refused "$base"/autoscaler.yaml 's/maxReplicas: 10/maxReplica: 10/' maxReplica
    refused "$base"/disruption.yaml 's/maxUnavailable/maxUnavailables/' maxUnavailables
    refused deploy/kubernetes/example/ingress.yaml 's/pathType: Prefix/pathtype: Prefix/' pathtype
    sed 's/limits:/limit:/' deploy/kubernetes/example/resources.yaml >"$work/broken.yaml"
    ! types_hold "+$work/broken.yaml" || return 1
}

# Everything that a kustomization names is there.
files_are_there() {
    for directory in base example; do
        grep -oE '^ +(# )?- (path: )?[a-z./]+(\.yaml|base)$' "deploy/kubernetes/$directory/kustomization.yaml" |
            sed 's/.* //' | while read -r file; do
            ls -d "deploy/kubernetes/$directory/$file"
        done
    done
}

render() {
    if command -v kustomize >/dev/null 2>&1; then
        kustomize build "$1"
    else
        kubectl kustomize "$1"
    fi
}

builds_hold() {
    for directory in base example; do
        render "deploy/kubernetes/$directory" >"$work/$directory.yaml"
        types_hold "$work/$directory.yaml"
        # The Deployment mounts the ConfigMap under the name that it was given.
        name=$(sed -n 's/^  name: \(weir-[a-z0-9]*\)$/\1/p' "$work/$directory.yaml")
        grep "^          name: $name\$" "$work/$directory.yaml"
    done
    grep 'image: registry.example.com/weir:0.1.0' "$work/example.yaml"
    grep 'memory: 2Gi' "$work/example.yaml"
}

check "Kubernetes' types hold for every manifest" manifests_hold
check "mistakes in manifests are found" mistakes_are_found
check "kustomizations name what is there" files_are_there
if command -v kustomize >/dev/null 2>&1 || command -v kubectl >/dev/null 2>&1; then
    check "what kustomize builds holds too" builds_hold
else
    echo "SKIP what kustomize builds - neither kustomize nor kubectl is installed"
    skipped=$((skipped + 1))
fi
finish
