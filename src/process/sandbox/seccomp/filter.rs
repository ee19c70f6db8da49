//! A seccomp filter: the system calls to answer in place of the kernel, and their compilation to BPF.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, sock_filter,
};

use crate::process::sandbox::error::SandboxError;

/// What a denied call returns. If several answers apply to a call, the kernel gives the last one in this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Answer {
    /// Success, without an effect.
    Done,
    /// EPERM: not permitted.
    Refused,
    /// ENOSYS: the kernel lacks the call. Programs fall back to an older one.
    Unknown,
    /// EPROTONOSUPPORT: the kernel lacks the protocol.
    NoProtocol,
    /// EOPNOTSUPP: the file system lacks the operation.
    Unsupported,
}

impl Answer {
    const fn errno(self) -> libc::c_int {
        match self {
            Self::Done => 0,
            Self::Refused => libc::EPERM,
            Self::Unknown => libc::ENOSYS,
            Self::NoProtocol => libc::EPROTONOSUPPORT,
            Self::Unsupported => libc::EOPNOTSUPP,
        }
    }
}

/// For which arguments a call is denied.
#[derive(Debug, Clone)]
enum When {
    Always,
    Any(Vec<SeccompRule>),
}

/// A condition on an argument of a call. Compares the lower 32 bits unless stated otherwise.
#[derive(Debug, Clone, Copy)]
pub(super) enum Is {
    /// The argument is not null (all 64 bits).
    There,
    /// The argument equals this value.
    Equal(u64),
    /// The argument differs from this value.
    Not(u64),
    /// All of these bits are set.
    With(u64),
    /// Of the bits in the first value, exactly those in the second are set.
    Masked(u64, u64),
}

/// Converts a constant of the C library to the type that filters compare.
pub(super) const fn number(value: libc::c_int) -> u64 {
    value.cast_unsigned() as u64
}

/// The system calls to deny, by their answer: for any arguments, or under conditions.
#[derive(Debug, Clone, Default)]
pub struct Denials {
    answers: BTreeMap<Answer, BTreeMap<i64, When>>,
}

impl Denials {
    /// Answers `calls` with EPERM, whatever their arguments are.
    pub fn always(&mut self, calls: &[i64]) -> &mut Self {
        self.answer_always(Answer::Refused, calls)
    }

    /// Answers `calls` with ENOSYS, whatever their arguments are.
    pub(super) fn unknown(&mut self, calls: &[i64]) -> &mut Self {
        self.answer_always(Answer::Unknown, calls)
    }

    pub(super) fn answer_always(&mut self, answer: Answer, calls: &[i64]) -> &mut Self {
        let answers = self.answers.entry(answer).or_default();
        answers.extend(calls.iter().map(|call| (*call, When::Always)));
        self
    }

    /// Gives `answer` to calls of `call` whose arguments meet all `conditions`, in addition to other rules for the same
    /// call. Each condition comes with the number of its argument, from 0. No effect if `call` gets this answer for any
    /// arguments.
    ///
    /// # Errors
    /// There is no such argument.
    pub(super) fn when(&mut self, answer: Answer, call: i64, conditions: &[(u8, Is)]) -> Result<(), BackendError> {
        let condition = |(argument, is): &(u8, Is)| {
            let width = if matches!(is, Is::There) { SeccompCmpArgLen::Qword } else { SeccompCmpArgLen::Dword };
            let (op, value) = match *is {
                Is::There => (SeccompCmpOp::Ne, 0),
                Is::Equal(value) => (SeccompCmpOp::Eq, value),
                Is::Not(value) => (SeccompCmpOp::Ne, value),
                Is::With(bits) => (SeccompCmpOp::MaskedEq(bits), bits),
                Is::Masked(mask, value) => (SeccompCmpOp::MaskedEq(mask), value),
            };
            SeccompCondition::new(*argument, width, op, value)
        };
        let rule = SeccompRule::new(conditions.iter().map(condition).collect::<Result<_, _>>()?)?;
        let when = self.answers.entry(answer).or_default().entry(call).or_insert_with(|| When::Any(Vec::new()));
        if let When::Any(rules) = when {
            rules.push(rule);
        }
        Ok(())
    }

    /// Puts the filters in force on the calling thread and all that it starts, irrevocably. The thread must have
    /// no-new-privileges.
    ///
    /// # Errors
    /// The system refuses.
    pub fn apply(&self) -> Result<(), SandboxError> {
        for program in self.programs()? {
            seccompiler::apply_filter(&program).map_err(SandboxError::refused("seccomp"))?;
        }
        Ok(())
    }

    /// Compiles the filters, one for each answer, in the order in which they are put in force. There is always one
    /// filter, so that [`apply`](Self::apply) fails on a kernel without seccomp.
    fn programs(&self) -> Result<Vec<BpfProgram>, BackendError> {
        let mut answers = self.answers.clone();
        answers.entry(Answer::Refused).or_default();
        let programs = answers.into_iter().map(|(answer, calls)| program(calls, answer.errno()));
        [Ok(newer())].into_iter().chain(programs).collect()
    }
}

fn program(calls: BTreeMap<i64, When>, errno: libc::c_int) -> Result<BpfProgram, BackendError> {
    let rules = calls.into_iter().map(|(call, when)| match when {
        // For the compiler no rule means: in any case.
        When::Always => (call, Vec::new()),
        When::Any(rules) => (call, rules),
    });
    let answer = SeccompAction::Errno(errno.cast_unsigned());
    SeccompFilter::new(rules.collect(), SeccompAction::Allow, answer, std::env::consts::ARCH.try_into()?)?.try_into()
}

/// Lowest system call number that was unused on all architectures when these lists were made (Linux 7.0).
const FIRST_UNKNOWN: u32 = 472;

/// A filter that answers newer system calls than the lists know with ENOSYS, because they might circumvent the lists.
/// On x86-64 this also denies the x32 ABI, a second set of all calls: a bit in its numbers makes them larger than any
/// other.
fn newer() -> BpfProgram {
    let step = |code: u32, jt, jf, k| sock_filter { code: code as u16, jt, jf, k };
    vec![
        // The number of the call, which is what the description of a call begins with.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, FIRST_UNKNOWN),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, SeccompAction::Errno(libc::ENOSYS.cast_unsigned()).into()),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, SeccompAction::Allow.into()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Denials {
        /// The number of BPF instructions in all filters.
        pub(in crate::process::sandbox) fn instructions(&self) -> usize {
            self.programs().map_or(0, |programs| programs.iter().map(Vec::len).sum())
        }
    }
}
