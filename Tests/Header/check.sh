#!/usr/bin/env bash
# The finished library against its header: it compiles alone and strictly, exports exactly its functions, needs only what a
# Debian system has, and leaves a host's BLAS alone. Usage: check.sh LIBRARY
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
library=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
ln -s "$library" "$work/libstockpot.so.0"
ln -s "$library" "$work/libstockpot.so"
strict=(-I "$root/include" -Wall -Wextra -pedantic -Werror)
link=(-L "$work" -lstockpot -Wl,-rpath,"$work")

echo '#include "stockpot.h"' >"$work/alone.c"
cp "$work/alone.c" "$work/alone.cpp"
gcc -std=c11 "${strict[@]}" -c "$work/alone.c" -o "$work/alone.o"
g++ -std=c++17 "${strict[@]}" -c "$work/alone.cpp" -o "$work/alone.o"
gcc -std=c11 "${strict[@]}" "$here/c11.c" "${link[@]}" -o "$work/c11"
"$work/c11" "$work"
g++ -std=c++17 "${strict[@]}" "$here/cpp17.cpp" "${link[@]}" -o "$work/cpp17"
"$work/cpp17"

# The example of the README, on a real checkpoint.
gcc -std=c11 "${strict[@]}" "$root/examples/c/merge.c" "${link[@]}" -o "$work/merge"
vit=$root/Tests/Fixtures/digits-vit
echo "{\"merge_method\": \"linear\", \"models\": [\"$vit/soup-0\", \"$vit/soup-1\"]}" >"$work/recipe.json"
"$work/merge" "$work/recipe.json" "$work/merged" 2>/dev/null
[ -f "$work/merged/model.safetensors" ] || { echo "failed: the C example wrote nothing"; exit 1; }
echo "example: merged two checkpoints from C"

# Comments are removed before function names are looked for.
gcc -E -P -I "$root/include" "$work/alone.c" | grep -oE '\bsp_[a-z0-9_]+ *\(' | tr -d ' (' | sort -u >"$work/declared"
nm -D --defined-only "$library" | awk '$2 != "A" {print $3}' | sed 's/@.*//' | sort -u >"$work/exported"
diff "$work/declared" "$work/exported" || { echo "failed: header (<) and exported symbols (>) differ"; exit 1; }
echo "symbols: $(wc -l <"$work/exported") functions, all of the header and no others"

readelf -d "$library" | sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p' | sort >"$work/needed"
unknown=$(grep -vE '^(libc|libm|libstdc\+\+|libgcc_s|libjansson|libgfortran|ld-linux-[a-z0-9_-]+)\.so\.[0-9]+$' "$work/needed" || true)
[ -z "$unknown" ] || { echo "failed: the library needs $unknown"; exit 1; }
echo "needed: $(tr '\n' ' ' <"$work/needed")"
if [ "$(uname -m)" = x86_64 ]; then
  readelf -n "$library" | grep -q 'x86-64-v3' || { echo "failed: the file is not marked x86-64-v3"; exit 1; }
fi

gcc -std=c11 "${strict[@]}" "$here/host_blas.c" "${link[@]}" -o "$work/plain"
gcc -std=c11 "${strict[@]}" -DHOST_BLAS -rdynamic "$here/host_blas.c" "${link[@]}" -o "$work/host"
plain=$("$work/plain")
host=$("$work/host") || { echo "$host"; exit 1; }
[ "$plain" = "$host" ] || { echo "failed: a host with its own BLAS gets $host instead of $plain"; exit 1; }
echo "host BLAS: not called, results equal ($plain)"
