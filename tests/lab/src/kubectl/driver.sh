#!/usr/bin/env bash
# Runs one of upstream's command tests of kubectl against servers that are there already.
#
#     driver.sh FUNCTION      one that upstream's script records, such as run_pod_tests
#     driver.sh between       what upstream checks between them, without them
#
# Start it in a directory that holds upstream's scripts and their data as upstream's repository
# does, with the programs under test in _output/bin. It stands in for upstream's
# hack/make-rules/test-cmd.sh, which builds and starts everything by itself.

set -o errexit
set -o nounset
set -o pipefail

chosen=$1

source hack/lib/init.sh
source hack/lib/test.sh
source test/cmd/legacy-script.sh

# Sourcing has recorded a command that is to fail, in a directory that upstream leaves behind.
case "${juDIR:-}" in
  /tmp/record_command_canary.*) rm -rf "${juDIR}" ;;
esac

# Upstream's handler says which functions were running; this says where in them.
at() {
  case $- in
    *e*) echo "!!! At $1:$2: $3" >&2 ;;
  esac
}
trap 'at "${BASH_SOURCE[0]}" "${LINENO}" "${BASH_COMMAND}"; kube::log::errexit' ERR

# The servers and programs are the lab's.
make() { :; }
kube::etcd::start() { :; }
kube::etcd::cleanup() { :; }

setup
export KUBE_JUNIT_REPORT_DIR="${KUBE_TEMP}/junit"
export SUPPORTED_RESOURCES=("*")
# Many tests count on what an earlier one leaves: a namespace that is not the default one.
create_and_use_new_namespace

if [[ "${chosen}" == between ]]; then
  WHAT=
  record_command() { echo "Left out: $1"; }
else
  # Upstream's WHAT chooses by the middle of a function's name; some names have other ends.
  run_chosen_tests() { "${chosen}"; }
  WHAT=chosen
fi

# Not in a subshell, which would not end at the first failure.
runTests
