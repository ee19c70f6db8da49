#!/bin/sh
# Runs a gateway in a virtual machine whose kernel gives it cgroups (v2) with controllers, and has it keep limits with
# them: most machines that tests run on delegate none. Needs qemu-system-x86_64, a static busybox, and a kernel with
# cgroups built in: KERNEL=/boot/vmlinuz…, or Debian's is downloaded (27 MB). It is emulated, and takes a minute
# or so; ACCEL=kvm where that works.
set -eu
cd "$(dirname "$0")/../.."
work=target/vm
bin=${SLUICE_BIN:-target/debug/sluice}
fixture=$(dirname "$bin")/examples/fixture
for tool in qemu-system-x86_64 busybox; do
    if ! command -v "$tool" >/dev/null; then
        echo "skipped: there is no $tool (Debian: apt-get install qemu-system-x86 busybox-static)"
        exit 0
    fi
done
mkdir -p "$work"

kernel=${KERNEL:-$(ls "$work"/kernel/boot/vmlinuz-* 2>/dev/null | head -n 1)}
if [ -z "$kernel" ]; then
    package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
    (cd "$work" && apt-get download "$package" && dpkg-deb -x "$package"_*.deb kernel && rm "$package"_*.deb)
    kernel=$(ls "$work"/kernel/boot/vmlinuz-* | head -n 1)
fi

root=$work/root
rm -rf "$root"
mkdir -p "$root/bin" "$root/proc" "$root/sys" "$root/dev" "$root/tmp"
cp "$(command -v busybox)" "$root/bin/busybox"
cp "$bin" "$root/bin/sluice"
cp "$fixture" "$root/bin/fixture"
cp tests/vm/init "$root/init"
cp tests/vm/sluice.toml "$root/sluice.toml"
chmod +x "$root/init"
ldd "$bin" "$fixture" | sed -n 's/.*\(=> \|\t\)\(\/[^ ]*\) (.*/\2/p' | sort -u | while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
done
(cd "$root" && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1) >"$work/initrd.gz"

timeout "${VM_TIMEOUT:-300}" qemu-system-x86_64 -machine accel="${ACCEL:-tcg}" -cpu qemu64 -smp 2 -m 1024 -nographic -no-reboot \
    -kernel "$kernel" -initrd "$work/initrd.gz" -append "console=ttyS0 quiet panic=-1 cgroup_no_v1=all" \
    </dev/null 2>&1 | tr -d '\r' | tee "$work/log" | grep -a -E '^(ok|FAILED|DONE|  )' || true
grep -a -q '^DONE' "$work/log" || { echo "it did not get to its end: see $work/log"; exit 1; }
! grep -a -q '^FAILED' "$work/log"
