//! Counts the processes below the gateway, and how many of them belong to its children.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use super::handle::Guardian;
use crate::process::cgroup::Subtree;
use crate::process::proc::ProcessTree;

/// Most counts in a row while the two numbers differ because processes start or end meanwhile.
const RECOUNTS: usize = 4;
/// Time between two counts.
const RECOUNT: Duration = Duration::from_millis(25);

/// Numbers of processes below the gateway at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Census {
    /// Children in the gateway's table, their descendants, and all in their cgroups.
    pub owned: usize,
    /// All processes below the gateway except for the guardian and the stages that wait. A number above `owned` means
    /// that processes were left behind.
    pub found: usize,
}

impl Guardian {
    /// Counts the processes below the gateway, up to four times until both numbers agree. Reading `/proc` happens on a
    /// blocking thread.
    pub async fn census(&self) -> io::Result<Census> {
        let mut census = Census::default();
        for _ in 0..RECOUNTS {
            let leaders = self.leaders();
            let guardian = self.clone();
            let read = move || {
                let groups = guardian.cgroups().map(Subtree::groups).unwrap_or_default();
                Ok::<_, io::Error>((groups, guardian.processes().read(Duration::ZERO)?))
            };
            let (groups, tree) = tokio::task::spawn_blocking(read).await.map_err(io::Error::other)??;
            census = self.count(&tree, &groups, &leaders);
            if census.owned == census.found {
                break;
            }
            tokio::time::sleep(RECOUNT).await;
        }
        Ok(census)
    }

    /// Counts once. A process is below the gateway if it descends from the guardian, is in one of the gateway's cgroups
    /// (`groups`), or descends from the gateway and the gateway has no other children. `leaders` are the children.
    fn count(&self, tree: &ProcessTree, groups: &[BTreeSet<i32>], leaders: &[i32]) -> Census {
        let (guardian, ready) = self.own_processes();
        let is_nobodys = |pid| Some(pid) == guardian || (ready.contains(&pid) && !leaders.contains(&pid));
        let gateway = (!self.has_other_children()).then(|| rustix::process::getpid().as_raw_pid());
        let mut census = Census::default();
        for (pid, ancestors) in tree.running_with_ancestors().filter(|(pid, _)| !is_nobodys(*pid)) {
            let group = groups.iter().find(|group| group.contains(&pid));
            let (mut is_owned, mut is_found) = (leaders.contains(&pid), group.is_some());
            is_owned |= group.is_some_and(|group| leaders.iter().any(|leader| group.contains(leader)));
            for ancestor in ancestors {
                is_owned |= leaders.contains(&ancestor);
                is_found |= Some(ancestor) == guardian || Some(ancestor) == gateway;
            }
            census.found += usize::from(is_found);
            census.owned += usize::from(is_found && is_owned);
        }
        census
    }
}
