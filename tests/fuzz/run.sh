#!/usr/bin/env bash
# Runs each fuzz target with libFuzzer, for so many seconds each: run.sh SECONDS [TARGET ...]
#
# The targets are unit tests (bolero), and only the program of the unit tests is built for libFuzzer: the others have no
# target, and could not be linked. What was found is kept in target/fuzz, and the next run goes on from there.
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=$1
shift
targets=("$@")
if [ ${#targets[@]} = 0 ]; then
  targets=(
    domain::row::tests::fuzz_a_line_that_is_taken_says_what_its_json_says
    intake::indexer::tests::fuzz_the_index_is_the_same_in_whatever_chunks_a_file_comes_and_names_its_rows
    upstream::streamed::tests::fuzz_a_stream_is_the_same_in_whatever_pieces_it_comes_and_what_it_ends_in_is_json
    domain::answer::tests::fuzz_an_answer_is_json_and_stays_as_it_came_if_it_was
    api::form::tests::fuzz_a_form_is_read_or_refused_in_whatever_chunks_it_comes
  )
fi
# With a target triple, build scripts and macros are not instrumented.
triple=$(rustc -vV | sed -n 's/^host: //p')
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module --cfg fuzzing_libfuzzer\
 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-level=4\
 -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares\
 -Cllvm-args=-sanitizer-coverage-stack-depth"
export BOLERO_FUZZER=libfuzzer
built=$(cargo test --lib --no-run --profile fuzz --target "$triple" --target-dir target/fuzz --message-format json)
program=$(grep -o '"executable":"[^"]*"' <<<"$built" | tail -1 | cut -d '"' -f 4)

for target in "${targets[@]}"; do
  found=target/fuzz/found/$target
  mkdir -p "$found/corpus" "$found/crashes"
  echo "$target: $seconds s"
  directories="$found/corpus $found/crashes -artifact_prefix=$found/crashes/"
  BOLERO_TEST_NAME=$target BOLERO_LIBTEST_HARNESS=1 \
    BOLERO_LIBFUZZER_ARGS="$directories -timeout=10 -max_total_time=$seconds -verbosity=0 -print_final_stats=1" \
    "$program" "$target" --exact --nocapture --quiet --test-threads 1
done
