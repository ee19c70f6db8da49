#!/bin/sh
# Runs a gateway in a virtual machine whose kernel gives it cgroups (v2) with controllers, and has it keep limits with
# them: most machines that tests run on delegate none. That kernel is also an older one, which lacks parts of a sandbox.
# Needs qemu-system-x86_64, a static busybox, and a kernel with cgroups built in, which scripts/setup.sh installs. The
# machine is emulated, and takes a quarter of a minute or so; ACCEL=kvm where that works. With ACCEL=kvm it is also started once
# more for the small table of the hostile neighbour (docs/NEIGHBOURS.md), whose times an emulated processor would spoil.
#
# Env: SLUICE_BIN         the binary that is tested (default target/debug/sluice, with the example `fixture` beside it)
#      SLUICE_REQUIRE_VM  1: a missing tool is a failure (default: the test is skipped, with the reason)
#      KERNEL             another kernel
set -eu
cd "$(dirname "$0")/../.."
work=target/vm
bin=${SLUICE_BIN:-target/debug/sluice}
fixture=$(dirname "$bin")/examples/fixture
neighbours=$(dirname "$bin")/examples/neighbours
skip() {
    echo "vm: skipped: $1"
    [ "${SLUICE_REQUIRE_VM:-0}" != 1 ] || exit 1
    exit 0
}
for tool in qemu-system-x86_64 busybox; do
    command -v "$tool" >/dev/null || skip "there is no $tool (Debian: apt-get install qemu-system-x86 busybox-static)"
done
kernel=${KERNEL:-$(ls "$work"/kernel/boot/vmlinuz-* 2>/dev/null | head -n 1)}
[ -n "$kernel" ] || skip "there is no kernel for it (scripts/setup.sh vm, as root on Debian)"

root=$work/root
rm -rf "$root"
mkdir -p "$root/bin" "$root/proc" "$root/sys" "$root/dev" "$root/tmp"
cp "$(command -v busybox)" "$root/bin/busybox"
cp "$bin" "$root/bin/sluice"
cp "$fixture" "$root/bin/fixture"
cp "$neighbours" "$root/bin/neighbours"
cp tests/vm/init "$root/init"
cp tests/vm/sluice.toml "$root/sluice.toml"
chmod +x "$root/init"
ldd "$bin" "$fixture" "$neighbours" | sed -n 's/.*\(=> \|\t\)\(\/[^ ]*\) (.*/\2/p' | sort -u | while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
done
(cd "$root" && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1) >"$work/initrd.gz"

# boot LOG PROCESSOR WORD…: starts it with some words on the kernel's command line; fails where it says that something failed.
boot() {
    log=$work/$1 cpu=$2
    shift 2
    timeout "${VM_TIMEOUT:-300}" qemu-system-x86_64 -machine accel="${ACCEL:-tcg}" -cpu "$cpu" -smp 2 -m 1024 -nographic \
        -no-reboot -kernel "$kernel" -initrd "$work/initrd.gz" \
        -append "console=ttyS0 quiet panic=-1 cgroup_no_v1=all $*" \
        </dev/null 2>&1 | tr -d '\r' | tee "$log" | grep -a -E '^(ok|FAILED|DONE|  )' || true
    grep -a -q '^DONE' "$log" || { echo "vm: it did not get to its end: see $log"; exit 1; }
    failed=$(grep -a -c '^FAILED' "$log" || true)
    echo "vm: $(grep -a -c '^ok' "$log") passed, $failed failed"
    test "$failed" = 0
}

case ${ACCEL:-tcg} in kvm) processor=host ;; *) processor=qemu64 ;; esac
boot log $processor
if [ "${ACCEL:-tcg}" = kvm ] && [ -w /dev/kvm ]; then
    VM_TIMEOUT=${VM_TIMEOUT:-600} boot log-neighbours $processor neighbours
else
    echo "vm: the table of the hostile neighbour was not run: it needs ACCEL=kvm and /dev/kvm"
fi
