#!/bin/sh
# Writes the vendored files anew, from the packages and versions that README.md names, and prints their hashes.
set -eu

cd "$(dirname "$0")"
fetched=$(mktemp -d)
trap 'rm -rf "$fetched"' EXIT

grep '^| [A-Za-z]*\.[A-Za-z.]* | ' README.md | tr -d '|' | while read -r file package version path rest; do
    folder=$fetched/$package-$version
    if [ ! -d "$folder" ]; then
        mkdir "$folder"
        (cd "$folder" && npm pack --silent "$package@$version" >/dev/null && tar xzf ./*.tgz)
    fi
    cp "$folder/package/$path" "$file"
    sha256sum "$file"
done
