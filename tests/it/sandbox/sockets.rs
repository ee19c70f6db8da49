//! What processes of one user have in common beside files: sockets with a name, and shared memory.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;

use sluice::config::{Allowance, SandboxMode};

use super::stage::{As, run};
use super::{Scene, kernel};

#[test]
fn sockets_and_memory_of_others_are_out_of_reach() {
    for user in As::all() {
        let scene = Scene::new();
        let _listener = scene.listen();
        scene.refused(
            user,
            &[
                ("socket", "logger --socket-errors=on --socket $OTHER/socket hello"),
                ("relative", "cd $OTHER && logger --socket-errors=on --socket socket hello"),
                ("memory", "id=$(ipcmk --shmem 4096) && ipcrm --shmem-id ${id##* }"),
                ("queue", "id=$(ipcmk --queue) && ipcrm --queue-id ${id##* }"),
            ],
        );
    }
}

#[test]
fn sockets_are_there_for_whom_they_are_allowed() {
    for user in As::all() {
        let scene = Scene::new();
        let _listener = scene.listen();
        for mode in [SandboxMode::Standard, SandboxMode::Strict] {
            let script = "logger --socket-errors=on --socket $OTHER/socket hello && echo sent || echo refused";
            let mut server = scene.server(mode, script);
            server.sandbox.allow = vec![Allowance::UnixSockets];
            assert_eq!(run(server, user).stdout, "sent\n", "{user:?} {mode:?}");
        }
    }
}

#[test]
fn a_server_has_sockets_of_its_own_where_the_kernel_keeps_them_inside() {
    let script = "logger --socket-errors=on --socket $PWD/socket hello 2>/dev/null && echo sent || echo refused";
    let scene = Scene::new();
    let own = scene.folder.path().join("own");
    let _listener = UnixListener::bind(own.join("socket")).unwrap();
    let said = run(scene.server(SandboxMode::Standard, script), As::Tester).stdout;
    assert_eq!(said, if kernel().landlock >= 9 { "sent\n" } else { "refused\n" });
}

impl Scene {
    /// Somebody who listens, to whoever finds the way.
    fn listen(&self) -> UnixListener {
        let path = self.folder.path().join("other/socket");
        let listener = UnixListener::bind(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
        listener
    }
}
