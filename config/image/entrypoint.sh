#!/bin/sh
# The first process of the image: gives up root, then becomes Sluice with the arguments of the container.
#
# A container that was started as root (the default) becomes the owner of /workspace, so that
# `docker run -v ./workspace:/workspace` works whoever made that folder. One that the engine has just made belongs
# to root and is empty: it is given to the image's own user first. Sluice itself never runs as root.
set -eu

user=10001
group=10001

if [ "$(id -u)" -ne 0 ]; then
    exec setpriv --no-new-privs sluice "$@"
fi

owner=$(stat -c %u /workspace)
if [ "$owner" -ne 0 ]; then
    user=$owner
    group=$(stat -c %g /workspace)
    [ "$group" -ne 0 ] || group=10001
elif [ -z "$(ls -A /workspace)" ]; then
    chown "$user:$group" /workspace ||
        echo "sluice: /workspace belongs to root and could not be given to user $user: it can only be read" >&2
else
    echo "sluice: /workspace belongs to root and is not empty, so it is left as it is: user $user can only read it." \
        "Give it to a user (chown 10001), or mount another folder." >&2
fi

export HOME=/home/sluice
if ! setpriv --reuid "$user" --regid "$group" --clear-groups true; then
    echo "sluice: cannot give up root without the capabilities SETUID and SETGID." \
        "Add them, or start the container with --user 10001:10001." >&2
    exit 77
fi
exec setpriv --reuid "$user" --regid "$group" --clear-groups --no-new-privs sluice "$@"
