#!/usr/bin/env bash
# Fuzzes each target for SECONDS_EACH seconds, or the one that is named: fuzz/run.sh [target]. A finding is written to
# fuzz/findings/; the corpus grows in target/fuzz/corpus/, and what a target found useful stays there.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}/fuzz"
triple=$(rustc -vV | sed -n 's/^host: //p')
# The flags of cargo-fuzz. The sanitizer needs a nightly compiler, or a stable one that is told to be nightly.
coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares"
RUSTC_BOOTSTRAP=1 RUSTFLAGS="$coverage -Zsanitizer=address" \
  cargo build --quiet --release --manifest-path fuzz/Cargo.toml --target "$triple"
targets=${1:-$(ls fuzz/corpus)}
mkdir -p fuzz/findings
for target in $targets; do
  mkdir -p "$CARGO_TARGET_DIR/corpus/$target"
  echo "==> $target"
  FUZZ_TARGET=$target "$CARGO_TARGET_DIR/$triple/release/fuzz" \
    "$CARGO_TARGET_DIR/corpus/$target" "fuzz/corpus/$target" -artifact_prefix="fuzz/findings/$target-" \
    -max_total_time="${SECONDS_EACH:-60}" -timeout=30 -rss_limit_mb=2048 -print_final_stats=1 -verbosity=0 2>&1 |
    grep -E 'ERROR|panicked|executed_units|new_units|slowest_unit|Test unit|bytes of memory|SUMMARY' || true
  [ "${PIPESTATUS[0]}" = 0 ] || failed="${failed:-} $target"
done
[ -z "${failed:-}" ] || { echo "findings of:$failed"; exit 1; }
