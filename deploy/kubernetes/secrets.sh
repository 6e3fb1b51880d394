#!/usr/bin/env bash
# The Secrets that the gateways and workers mount, with an authority of their own, as YAML for `kubectl apply -f -`:
#
#     deploy/kubernetes/secrets.sh FOLDER [NAME...]      # NAME: of callers, a key each, in FOLDER/NAME.key
#
# FOLDER keeps the authority and the keys: have it outside the repository, and as safe as what they open. Run again, it makes
# certificates anew and keeps authority and keys; gateways and workers use the new ones within seconds. Where there is
# cert-manager, let it make gateway-tls, worker-tls and gateway-worker-client instead; their keys have the same names.
set -euo pipefail
umask 077
folder=${1:?usage: secrets.sh FOLDER [NAME...]}
shift
days=${DAYS:-365}
mkdir -p "$folder"
cd "$folder"

authority() {  # NAME: unless it is there
    [ -f "$1.crt" ] || openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 \
        -subj "/CN=robust-synthesis $1" -keyout "$1.key" -out "$1.crt" 2>openssl.log
}

certificate() {  # NAME AUTHORITY HOST...
    local name=$1 authority=$2 names
    shift 2
    names=$(printf ',DNS:%s' "$@")
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$name" -keyout "$name.key" -out "$name.csr" 2>openssl.log
    openssl x509 -req -in "$name.csr" -CA "$authority.crt" -CAkey "$authority.key" -CAcreateserial -days "$days" \
        -extfile <(echo "subjectAltName=${names:1}") -out "$name.crt" 2>openssl.log
    rm "$name.csr"
}

secret() {  # NAME TYPE KEY=FILE...
    printf -- '---\napiVersion: v1\nkind: Secret\nmetadata: {name: %s, namespace: robust-synthesis}\ntype: %s\ndata:\n' "$1" "$2"
    shift 2
    for entry in "$@"; do
        printf '  %s: %s\n' "${entry%%=*}" "$(base64 <"${entry#*=}" | tr -d '\n')"
    done
}

authority inside   # between gateways and workers
authority outside  # of gateways, for callers
certificate worker inside worker.robust-synthesis.svc worker
certificate gateway-worker-client inside gateway
certificate gateway outside gateway.robust-synthesis.svc gateway-headless.robust-synthesis.svc ${HOST:-localhost}
touch keys
for caller in "$@"; do
    [ -f "$caller.key" ] || openssl rand -hex 32 >"$caller.key"
    grep -q " $caller\$" keys || echo "$(tr -d '\n' <"$caller.key" | openssl dgst -sha256 -r | cut -d ' ' -f 1) $caller" >>keys
done

secret gateway-tls kubernetes.io/tls tls.crt=gateway.crt tls.key=gateway.key ca.crt=outside.crt
secret worker-tls kubernetes.io/tls tls.crt=worker.crt tls.key=worker.key ca.crt=inside.crt
secret gateway-worker-client kubernetes.io/tls tls.crt=gateway-worker-client.crt tls.key=gateway-worker-client.key ca.crt=inside.crt
secret gateway-callers Opaque keys=keys
