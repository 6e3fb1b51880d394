#!/usr/bin/env bash
# Build the images of the gateway and the worker, and say how large they are:
#
#     deploy/image.sh [gateway] [worker]        # both, where none is named
#
#     COMPUTE=cpu|cuda        which torch the worker has (cpu)
#     TORCH_INDEX=URL         where that comes from; empty is PyPI (cpu: PyTorch's index of builds without CUDA, unless the folder
#                             PIP_FIND_LINKS has one)
#     TAG=...                 (the version of the package)
#     STORE=FOLDER            of buildah, which is used where no docker daemon answers (out/images)
#
# buildah makes a base of its own with debootstrap where none can be pulled, and gives the build this machine's settings of pip:
# PIP_FIND_LINKS and the certificates of PIP_CERT.
set -euo pipefail
cd "$(dirname "$0")/.."

compute=${COMPUTE:-cpu}
case $compute in
    cpu)
        index=https://download.pytorch.org/whl/cpu
        if compgen -G "${PIP_FIND_LINKS:-/nowhere}/torch-*+cpu*" >/dev/null; then index=; fi
        index=${TORCH_INDEX-$index}
        ;;
    cuda) index=${TORCH_INDEX-} ;;
    *) echo "COMPUTE is $compute; give cpu or cuda." >&2; exit 2 ;;
esac
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' robust_synthesis/__init__.py)
tag=${TAG:-$version}
store=$(realpath -m "${STORE:-out/images}")
targets=("${@:-gateway}")
[ $# -gt 0 ] || targets=(gateway worker)

name_of() {  # TARGET
    if [ "$1" = worker ]; then echo "robust-synthesis-worker:$tag-$compute"; else echo "robust-synthesis-$1:$tag"; fi
}

with_docker() {
    local target
    for target in "${targets[@]}"; do
        docker build --target "$target" --build-arg TORCH_INDEX="$index" -t "$(name_of "$target")" .
        docker image inspect --format "$(name_of "$target"): {{.Size}} bytes" "$(name_of "$target")"
    done
}

ours() {
    buildah --root "$store/storage" --runroot "$store/run" --storage-driver vfs "$@"
}

base() {  # prints the name of a Debian to start from
    local name=docker.io/library/debian:bookworm-slim made=localhost/debian:bookworm-slim container
    if ours inspect --type image $made >/dev/null 2>&1; then echo $made; return; fi
    if ours pull --quiet --policy missing $name >/dev/null 2>&1; then echo $name; return; fi
    rm -rf --one-file-system "$store/debian"
    debootstrap --variant=minbase bookworm "$store/debian" >"$store/debootstrap.log"
    echo "deb http://deb.debian.org/debian-security bookworm-security main" >>"$store/debian/etc/apt/sources.list"
    rm -rf "$store"/debian/var/cache/apt/archives/*.deb "$store"/debian/var/lib/apt/lists/* \
        "$store"/debian/usr/share/{doc,man,info,locale}/*
    container=$(ours from scratch)
    ours add --quiet "$container" "$store/debian" / >/dev/null
    ours commit --quiet --rm --format docker "$container" $made >/dev/null
    rm -rf "$store/debian"
    echo $made
}

with_buildah() {
    local target from volumes=() settings="[global]"
    mkdir -p "$store"
    from=$(base)
    if [ -n "${PIP_CERT:-}" ]; then
        settings+=$'\ncert = /run/host-ca.crt'
        volumes+=(--volume "$(realpath "$PIP_CERT"):/run/host-ca.crt:ro")
    fi
    if [ -d "${PIP_FIND_LINKS:-}" ]; then
        settings+=$'\nfind-links = /run/wheels'
        volumes+=(--volume "$(realpath "$PIP_FIND_LINKS"):/run/wheels:ro")
    fi
    echo "$settings" >"$store/pip.conf"
    volumes+=(--volume "$store/pip.conf:/etc/pip.conf:ro")
    for target in "${targets[@]}"; do
        # Docker's format: the other one has no HEALTHCHECK.
        ours bud --quiet --isolation chroot --pull-never --format docker --target "$target" "${volumes[@]}" \
            --build-arg BASE="$from" --build-arg TORCH_INDEX="$index" -t "$(name_of "$target")" . >"$store/$target.id"
        ours images --format '{{.Name}}:{{.Tag}}: {{.Size}}' "$(name_of "$target")"
    done
}

if docker info >/dev/null 2>&1; then
    with_docker
elif command -v buildah >/dev/null && command -v debootstrap >/dev/null; then
    with_buildah
else
    echo "images need a docker daemon, or the programs buildah and debootstrap: apt-get install --no-install-recommends buildah debootstrap" >&2
    exit 2
fi
