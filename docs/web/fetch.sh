#!/usr/bin/env bash
# Fetch the parts of onnxruntime-web that the page needs, from npm, into ort/ beside it (or into the folder given).
set -euo pipefail

version=1.30.0
sha512=ab4cbe26baedba45d2cec05610c71c55fa97db92d19a8b171c5f8269126683ca590a5cdc57bb2f35ce2b298de32f4d956fb42644c0ecd528a0a91e025c07ca61  # of the package
target=$(realpath -m "${1:-$(dirname "$0")/ort}")
files=(ort.wasm.min.mjs ort-wasm-simd-threaded.mjs ort-wasm-simd-threaded.wasm)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm pack --silent --prefer-offline "onnxruntime-web@$version" >/dev/null
echo "$sha512  onnxruntime-web-$version.tgz" | sha512sum --check --quiet
tar -xzf "onnxruntime-web-$version.tgz"
mkdir -p "$target"
for file in "${files[@]}"; do
    cp "package/dist/$file" "$target/"
done
echo "onnxruntime-web $version (MIT) is in $target"
