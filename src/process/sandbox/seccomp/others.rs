//! What concerns other processes, by the number of a process among the arguments.

use seccompiler::BackendError;

use super::{Answer, Denials, Is, number, rule};

/// Keystrokes into a terminal, as if its user had typed them.
const TERMINAL_INPUT: [u64; 2] = [0x5412, 0x541c];

impl Denials {
    /// Refuses to change the limits and the priority of another process of the same user, such as the gateway; and to undo
    /// that by which a child is ended with the gateway, and what it leaves behind is found.
    pub(super) fn refuse_others(&mut self) -> Result<(), BackendError> {
        self.when(Answer::Refused, libc::SYS_prlimit64, any_but_zero(0)?);
        self.when(Answer::Refused, libc::SYS_setpriority, any_but_zero(0)?);
        self.when(Answer::Refused, libc::SYS_setpriority, any_but_zero(1)?);
        // Another signal could be caught.
        let signal = [(0, Is::Equal(number(libc::PR_SET_PDEATHSIG))), (1, Is::Not(number(libc::SIGKILL)))];
        self.when(Answer::Refused, libc::SYS_prctl, rule(&signal)?);
        let reaper = [(0, Is::Equal(number(libc::PR_SET_CHILD_SUBREAPER))), (1, Is::Equal(0))];
        self.when(Answer::Refused, libc::SYS_prctl, rule(&reaper)?);
        for request in TERMINAL_INPUT {
            self.when(Answer::Refused, libc::SYS_ioctl, rule(&[(1, Is::Equal(request))])?);
        }
        Ok(())
    }

    /// Refuses signals to all but the own process group.
    ///
    /// # Errors
    /// There is no such condition.
    pub(in crate::process::sandbox) fn only_own_group(&mut self) -> Result<(), BackendError> {
        self.when(Answer::Refused, libc::SYS_kill, any_but_zero(0)?);
        Ok(())
    }
}

/// Matches a call whose argument number `argument` is not zero.
fn any_but_zero(argument: u8) -> Result<seccompiler::SeccompRule, BackendError> {
    rule(&[(argument, Is::Not(0))])
}
