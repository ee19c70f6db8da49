//! The table of the hostile neighbour in its small size: `bench/neighbours.rs`, docs/NEIGHBOURS.md.

use std::process::{Command, Stdio};

use crate::harness::fixture_path;

/// Rows that are not held yet: eight starts that hang take all turns for five seconds.
const WITHOUT: &str = "hanging starts";

#[test]
fn no_attack_of_one_tenant_costs_another_one_errors_or_three_times_the_time() {
    let fixture = fixture_path();
    let status = Command::new(fixture.with_file_name("neighbours"))
        .args(["--small", "--without", WITHOUT, "--sluice", env!("CARGO_BIN_EXE_sluice"), "--fixture"])
        .arg(fixture)
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "a row has failed: {status}");
}
